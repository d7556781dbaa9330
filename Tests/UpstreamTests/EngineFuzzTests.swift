import Contract
import NIOCore
import TestSupport
import Testing

@testable import Upstream

/// Mutated HTTP responses through libcurl: each call ends once, with a meaningful failure, and the engine serves the next one.
///
/// The test uses a hundredth of `SLUICE_FUZZ_INPUTS` inputs.
@Suite(.serialized, .cpuBound)
struct EngineFuzzTests {
    private static let statusLines = [
        "HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 200", "HTTP/1.0 200 OK", "http/1.1 200 OK", "HTTP/2 200",
        "HTTP/1.1 2000 OK", "HTTP/1.1 -1 OK", "HTTP/1.1  200 OK", "HTTP/1.1\t200 OK", "HTTP/1.1 99 Low", "HTTP/1.1 999 High",
        "HTTP/1.1 204 No Content", "HTTP/1.1 206 Partial", "HTTP/1.1 304 Not Modified", "HTTP/1.1 301 Moved", "HTTP/1.1 401 No",
        "HTTP/1.1 407 Proxy", "HTTP/1.1 417 Expectation", "HTTP/1.1 429 Slow", "HTTP/1.1 503 Busy", "HTTP/1.1 529 Over", "ICY 200 OK",
        "HTTP/1.1 101 Switching", " HTTP/1.1 200 OK", "HTTP/1.1", "",
    ]

    private static let headers = [
        " folded: first", "\tfolded", " ", "X-A: b", "X-A: b\r\n more\r\n\tand more", "no colon", ": no name", "X-Nul: a\0b",
        "Retry-After: 99999999999999999999999", "Retry-After: -1", "Retry-After: 1e309", "Retry-After: Sun, 06 Nov 9999 08:49:37 GMT",
        "x-request-id: sk-secret-canary", "Content-Length: -1", "Content-Length: 99999999999999999999", "Content-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6", "Content-Encoding: gzip", "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked, chunked",
        "Connection: close", "Connection: upgrade\r\nUpgrade: h2c", "Location: http://127.0.0.1:1/", "WWW-Authenticate: Basic",
        "Set-Cookie: a=b", "Alt-Svc: h3=\":1\"", "Trailer: x", "X-Long: " + String(repeating: "y", count: 5_000), "Content-Type:",
        "Content-Type: text/html", "Content-Type: " + String(repeating: "t", count: 3_000),
    ]

    private static func chunked(_ body: [UInt8], _ random: inout SplitMix64) -> [UInt8] {
        var out: [UInt8] = []
        for piece in FuzzGrammar.slices(body, &random) {
            var size = String(piece.count, radix: 16)
            switch Int.random(in: 0..<200, using: &random) {
            case 0: size = "fffffffffffffffff"
            case 1: size = "-1"
            case 2: size = "7fffffffffffffff"
            case 3: size = ""
            case 4: size = String(piece.count + 1, radix: 16)
            case 5: size += ";" + String(repeating: "e", count: 500)
            case 6: size = "000000" + size.uppercased()
            default: break
            }
            out += Array((size + "\r\n").utf8) + piece + Array("\r\n".utf8)
        }
        let ends = ["0\r\n\r\n", "0\r\n\r\n", "0\r\n\r\n", "0\r\n folded: trailer\r\n\r\n", "0\r\nX-T: 1\r\n\tmore\r\n\r\n", "0\r\n", ""]
        return out + Array((ends.randomElement(using: &random) ?? "").utf8)
    }

    private static func response(_ dialect: FuzzGrammar.Dialect, _ random: inout SplitMix64) -> [UInt8] {
        var body = FuzzGrammar.body(dialect, &random)
        if Int.random(in: 0..<4, using: &random) == 0 { FuzzGrammar.mutate(&body, &random) }
        var head: [String] = []
        if Int.random(in: 0..<8, using: &random) == 0 { head += ["HTTP/1.1 100 Continue", "X-Early: 1", ""] }
        head.append(statusLines.randomElement(using: &random) ?? "")
        head.append("Content-Type: \(dialect.contentType)")
        for _ in 0..<Int.random(in: 0...3, using: &random) {
            let header = headers.randomElement(using: &random) ?? ""
            // Some are inserted before all other headers, where a continuation continues nothing.
            if Bool.random(using: &random) { head.append(header) } else { head.insert(header, at: head.count - 1) }
        }
        switch Int.random(in: 0..<3, using: &random) {
        case 0: head.append("Content-Length: \(body.count)")
        case 1:
            head.append("Transfer-Encoding: chunked")
            body = chunked(body, &random)
        default: break
        }
        var bytes = Array((head.joined(separator: "\r\n") + "\r\n\r\n").utf8) + body
        if Int.random(in: 0..<4, using: &random) == 0 { FuzzGrammar.mutate(&bytes, &random) }
        return bytes
    }

    /// The number of the input is part of the request's id in the head.
    private static func index(of exchange: RawServer.Exchange) -> Int? {
        guard let mark = exchange.head.firstRange(of: "x-request-id: p0-fuzz-") else { return nil }
        return Int(exchange.head[mark.upperBound...].prefix { $0.isNumber })
    }

    private static func answer(_ exchange: RawServer.Exchange, _ dialect: FuzzGrammar.Dialect) {
        guard let index = index(of: exchange) else { return EngineScript.stream(exchange) }
        var random = SplitMix64(seed: Fuzz.seed(of: index))
        let bytes = response(dialect, &random)
        let pieces = FuzzGrammar.slices(bytes, &random)
        for piece in pieces.prefix(20) { exchange.send(Array(piece)) }
        let rest = pieces.dropFirst(20).flatMap { $0 }
        exchange.channel.writeAndFlush(ByteBuffer(bytes: rest)).whenComplete { _ in exchange.close() }
    }

    @Test(.timeLimit(.minutes(10)), .disabled(if: Fuzz.isExtended), arguments: FuzzGrammar.Dialect.allCases)
    func `every mutated response ends with a result or a failure`(_ dialect: FuzzGrammar.Dialect) async throws {
        try await Self.run(dialect)
    }

    @Test(.enabled(if: Fuzz.isExtended, "SLUICE_FUZZ_INPUTS is not set"), arguments: FuzzGrammar.Dialect.allCases)
    func `every mutated response ends with a result or a failure, without a time limit`(_ dialect: FuzzGrammar.Dialect) async throws {
        try await Self.run(dialect)
    }

    private static func run(_ dialect: FuzzGrammar.Dialect) async throws {
        let server = try await RawServer { answer($0, dialect) }
        let inputs = Fuzz.inputs(3_000) / 100
        try await Caller.with { caller in
            for index in 0..<inputs {
                let id = try #require(JobID("p0-fuzz-\(index)"))
                let failure: Failure?
                switch dialect {
                case .samples, .speech:
                    let kind = dialect == .samples ? SpeechConfiguration.Kind.openai : .dashscope
                    let speech = SpeechConfiguration(kind: kind, url: server.url, key: "sk-secret-canary", model: nil, voice: nil)
                    failure = try await caller.speak(on: speech, jobID: id).failure
                default:
                    let kind = dialect.kind ?? .openai
                    var request = GenerationRequest.hello
                    request.jobID = id
                    failure = try await caller.ask(.at(server.url, kind: kind), request).failure?.failure
                }
                guard let failure else { continue }
                let place = "seed \(Fuzz.seed), input \(index), \(dialect)"
                #expect(failure.code != .internal && failure.code != .upstreamUnreachable, "\(place): \(failure)")
                #expect(failure.message.utf8.count <= 600 && !failure.message.contains("canary"), "\(place): \(failure)")
            }
            // From another server: the last connection may have been chosen for the call before its end arrived.
            let other = try await RawServer(EngineScript.stream)
            let healthy = try await caller.ask(.at(other.url))
            #expect(healthy.result == .complete && healthy.text == "Hello", "\(String(describing: healthy.failure))")
            try await other.stop()
            #expect(await caller.openCalls == 0)
        }
        try await server.stop()
    }
}
