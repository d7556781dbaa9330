import Contract
import NIOConcurrencyHelpers
import NIOCore
import TestSupport
import Testing

@testable import Upstream

/// Header lines that begin with white space, the obsolete continuation of RFC 9112 (5.2).
///
/// libcurl 7.88.1 keeps a pointer to the last header of the previous response in an easy handle, `curl_easy_reset` does not clear it, and a
/// continuation as the first header line is appended to the memory behind it.
@Suite(.serialized, .cpuBound, .timeLimit(.minutes(10)))
struct FoldedHeaderTests {
    /// Answers alternately with a normal and a folded response on persistent connections.
    private static func script(_ exchange: RawServer.Exchange, folded: String, count: NIOLockedValueBox<Int>) {
        let isFolded = count.withLockedValue { count in
            count += 1
            return count % 2 == 0
        }
        guard isFolded else { return EngineScript.stream(exchange) }
        exchange.channel.writeAndFlush(ByteBuffer(string: folded)).whenComplete { _ in exchange.close() }
    }

    private static func ask(times: Int, folded: String) async throws {
        let count = NIOLockedValueBox(0)
        let server = try await RawServer { script($0, folded: folded, count: count) }
        try await Caller.with { caller in
            for _ in 0..<times {
                let ordinary = try await caller.ask(.at(server.url))
                #expect(ordinary.result == .complete && ordinary.text == "Hello")
                let broken = try await caller.ask(.at(server.url))
                #expect(broken.failure?.failure.code == .upstreamProtocol, "\(String(describing: broken.result))")
            }
        }
        try await server.stop()
    }

    @Test func `a continuation as the first header line is rejected`() async throws {
        try await Self.ask(times: 1_000, folded: "HTTP/1.1 200 OK\r\n x: y\r\n\r\n")
    }

    /// With several continuations, libcurl 7.88.1 used memory that it had freed.
    @Test func `continuations of a header line are rejected`() async throws {
        let continuations = (1...8).map { " " + String(repeating: "x", count: 700 * $0) + "\r\n\tmore\r\n" }.joined()
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-A: b\r\n" + continuations + "\r\n"
        try await Self.ask(times: 200, folded: head)
    }
}
