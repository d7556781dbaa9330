import Contract
import NIOCore
import NIOPosix
import Testing

@testable import Upstream

/// Host names and addresses of both families.
@Suite(.timeLimit(.minutes(10)))
struct AddressTests {
    private static func stream(_ exchange: RawServer.Exchange) {
        exchange.beginStream()
        exchange.chunk(#"data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}"# + "\n\ndata: [DONE]\n\n")
        exchange.endStream()
    }

    /// Whether this machine has the loopback address of IPv6.
    private static func hasIPv6() async -> Bool {
        guard let channel = try? await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton).bind(host: "::1", port: 0).get() else {
            return false
        }
        try? await channel.close()
        return true
    }

    /// `localhost` is both ::1 and 127.0.0.1; the server listens on one of them.
    @Test(arguments: [("127.0.0.1", "localhost"), ("::1", "localhost"), ("::1", "[::1]"), ("127.0.0.1", "127.0.0.1")])
    func `a host name is tried in both address families`(listens: String, asked: String) async throws {
        let hasIPv6 = await Self.hasIPv6()
        guard listens == "127.0.0.1" || hasIPv6 else { return }
        let server = try await RawServer(host: listens, Self.stream)
        let recording = try await Caller.with { try await $0.ask(.at("http://\(asked):\(server.port)/v1")) }
        #expect(recording.result == .complete && recording.text == "Hi", "\(String(describing: recording.result))")
        try await server.stop()
    }

    @Test(arguments: ["nobody.invalid", "a..b", "-", "999.1.1.1"]) func `an unknown host name is unreachable`(name: String) async throws {
        let recording = try await Caller.with { try await $0.ask(.at("http://\(name)/v1")) }
        let failure = try #require(recording.failure?.failure)
        #expect(failure.code == .upstreamUnreachable && recording.connected == 0, "\(failure)")
        #expect(!failure.message.contains("canary"))
    }
}
