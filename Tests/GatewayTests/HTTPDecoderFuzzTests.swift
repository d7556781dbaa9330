import Contract
import NIOCore
import NIOEmbedded
import NIOHTTP1
import TestSupport
import Testing

@testable import Gateway

/// Fuzz tests with seeded input for all decoders of HTTP input. `SLUICE_FUZZ_INPUTS` (300) sets the number of inputs and
/// `SLUICE_FUZZ_SEED` (1) the seed.
@Suite(.serialized, .cpuBound, .timeLimit(.minutes(60)))
struct HTTPDecoderFuzzTests {
    /// Calls `body` once per input with a grammar of its own.
    private func run(_ body: (inout HTTPGrammar, _ what: String) throws -> Void) async rethrows {
        for number in 0..<Fuzz.inputs(300) {
            if number % 64 == 0 { await Task.yield() }
            var grammar = HTTPGrammar(keys: ["tenant-a-test-key"], seed: Fuzz.seed(of: number))
            try body(&grammar, "seed \(Fuzz.seed), input \(number)")
        }
    }

    /// Records the request heads that pass the guard.
    private final class Heads: ChannelInboundHandler {
        typealias InboundIn = HTTPServerRequestPart
        var heads: [HTTPRequestHead] = []
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            if case .head(let head) = unwrapInboundIn(data) { heads.append(head) }
        }
        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }

    @Test func `ambiguous requests do not pass the guard`() async throws {
        try await run { grammar, what in
            let channel = EmbeddedChannel()
            let heads = Heads()
            let operations = channel.pipeline.syncOperations
            try operations.configureHTTPServerPipeline(withPipeliningAssistance: false, withErrorHandling: false)
            try operations.addHandlers(
                [RequestGuard(bodyTimeout: .seconds(30), bodyMaximum: 1 << 20, hosts: .loopback), heads])
            channel.pipeline.fireChannelActive()
            let bytes = grammar.connection(of: 2)
            let cut = bytes.count / 2
            // An error closes the connection; that is expected.
            for part in [bytes[..<cut], bytes[cut...]] where channel.isActive || cut >= 0 {
                do { try channel.writeInbound(ByteBuffer(bytes: part)) } catch { break }
            }
            for head in heads.heads {
                let lengths = head.headers["content-length"]
                let codings = head.headers["transfer-encoding"]
                let hosts = head.headers["host"]
                #expect(lengths.count + codings.count <= 1, "\(what): \(head)")
                #expect(codings.isEmpty || codings[0].lowercased() == "chunked" && head.version == .http1_1, "\(what): \(head)")
                #expect(hosts.count == 1 || hosts.isEmpty && head.version.minor == 0, "\(what): \(head)")
                #expect(HostRule.loopback.allows(hosts), "\(what): \(head)")
            }
            // The channel may already be closed.
            _ = try? channel.finish(acceptAlreadyClosed: true)
        }
    }

    @Test func `decoders of bodies, headers and files accept or reject any input`() async throws {
        let hash = "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
        let texts = [
            "1-9007199254740991", "Bearer tenant-a-test-key", "http://127.0.0.1:8080", "[::1]:8080", "tenant-a:0123456789abcdef",
            "acme:ann:\(hash)", "$scrypt$ln=10,r=8,p=1$MDEyMzQ1Njc4OWFiY2RlZg$EnnshMQJBO5njFXhxb7lqJrTfwJZ", hash,
            #"{"keys":[{"kty":"oct","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}]}"#, "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.AA",
            "2001:db8::ffff:1.2.3.4",
        ]
        let id = try #require(JobID("p0-x"))
        var failures = FailedLogins()
        await run { grammar, _ in
            // The decoders may throw or return nil. The test fails only when one crashes or does not return.
            let body = grammar.request()
            _ = try? ChatCompletionRequest(parsing: body, maximumDepth: 32)
            _ = try? JobSubmission.job(parsing: body, id: id, owner: "a", maximumDepth: 32)
            _ = try? JobRoutes.reason(parsing: body)
            var bytes = Array(grammar.pick(texts).utf8)
            grammar.mutate(&bytes)
            let text = String(decoding: bytes, as: UTF8.self)
            _ = try? JobEventRoute.lastEventID(text)
            _ = JobSubmission.idempotencyKey(text, owner: text)
            _ = AuthenticationMiddleware.bearer(text)
            _ = HostRule.loopback.allows([text])
            _ = OriginRule(allowed: nil).allows(origin: text, host: text)
            _ = AuthenticationSettings.isLoopback(text)
            var keys = APIKeys()
            try? keys.add(text, setting: "test")
            _ = try? Accounts(parsing: text, setting: "test")
            _ = PasswordHash(text)?.cost
            _ = try? JWTVerificationKey.set(parsing: text, setting: "test")
            _ = JSONWebTokens.isToken(text) ? text.split(separator: ".").first?.base64URLDecoded : nil
            _ = failures.add(address: text, now: Int(bytes.first ?? 0))
        }
        #expect(failures.count <= FailedLogins.maximumAddresses)
    }
}
