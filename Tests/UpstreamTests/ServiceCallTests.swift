import Contract
import NIOConcurrencyHelpers
import TestSupport
import Testing

@testable import CurlTransport
@testable import Upstream

/// Calls of recognition and retrieval upstreams.
@Suite(.timeLimit(.minutes(10))) struct ServiceCallTests {
    private static let job = GenerationRequest.hello.jobID

    private static func recognize(
        _ caller: Caller, at url: String, completion: @escaping @Sendable (Result<[UInt8], UpstreamFailure>) -> Void
    ) async throws {
        try await caller.run { caller in
            let request = RecognitionRequest(jobID: job, audio: [1, 0], isWAV: false, language: nil, traceparent: nil)
            let configuration = RecognitionConfiguration(kind: .openai, url: url, key: "sk-secret", model: nil, language: nil)
            caller.service = try caller.client.recognize(request, on: configuration, completion: completion)
        }
    }

    /// The result of a recognition.
    private static func result(_ caller: Caller, at url: String) async throws -> Result<[UInt8], UpstreamFailure> {
        let (results, continuation) = AsyncStream.makeStream(of: Result<[UInt8], UpstreamFailure>.self)
        try await recognize(caller, at: url) { continuation.yield($0) }
        for await result in results { return result }
        throw WaitedInVain(description: "no result")
    }

    @Test func `a call is cut from another thread, and its result is not delivered`() async throws {
        let (received, receive) = AsyncStream.makeStream(of: Void.self)
        let server = try await RawServer { _ in receive.finish() }
        let delivered = NIOLockedValueBox(0)
        try await Caller.with { caller in
            try await Self.recognize(caller, at: server.url) { _ in delivered.withLockedValue { $0 += 1 } }
            for await _ in received {}
            // The server may have read the request before libcurl has registered the socket.
            try await until("the connection to be known") { caller.sockets.cut(Self.job) }
            for await _ in server.closed { break }
            #expect(await caller.openCalls == 1, "the interrupt that follows on the loop ends the call")
            await caller.run { $0.service?.cancel() }
            #expect(await caller.openCalls == 0)
            #expect(!caller.sockets.wasCut(Self.job.rawValue))
            // A cancelled call may be cancelled again.
            await caller.run { $0.service?.cancel() }
        }
        #expect(delivered.withLockedValue { $0 } == 0)
        try await server.stop()
    }

    @Test func `results`() async throws {
        let table: [(answer: String, code: FailureCode?, status: Int?, words: String)] = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", nil, nil, "ok"),
            (
                "HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 52\r\n\r\n"
                    + #"{"error":{"message":"sk-secret is over its limit!"}}"#,
                .rateLimited, 429, "[key] is over its limit"
            ),
            ("HTTP/1.1 301 Moved\r\nLocation: http://h/\r\nContent-Length: 0\r\n\r\n", .upstreamProtocol, 301, "redirect refused"),
            ("HTTP/1.1 200 OK\r\nContent-", .upstreamDisconnected, nil, "before sending a complete response head"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", .upstreamDisconnected, 200, "lost"),
            ("rubbish\r\n\r\n", .upstreamProtocol, nil, "malformed"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + String(repeating: "x", count: 1_100_000), .upstreamProtocol, nil,
                "larger than 1048576 bytes"
            ),
        ]
        let next = NIOLockedValueBox(0)
        let server = try await RawServer { exchange in
            exchange.send(table[next.withLockedValue { $0 }].answer)
            exchange.close()
        }
        try await Caller.with { caller in
            for (index, row) in table.enumerated() {
                next.withLockedValue { $0 = index }
                switch try await Self.result(caller, at: server.url) {
                case .success(let body): #expect(row.code == nil && String(decoding: body, as: UTF8.self) == row.words, "\(index)")
                case .failure(let error):
                    #expect(error.failure.code == row.code && error.failure.upstreamStatus == row.status, "\(index): \(error)")
                    #expect(error.failure.message.contains(row.words), "\(index): \(error.failure.message)")
                    #expect(!error.failure.message.contains("sk-secret"))
                    #expect(error.retryAfter == (index == 1 ? .seconds(7) : nil), "\(index)")
                }
                #expect(await caller.openCalls == 0)
            }
        }
        try await server.stop()
        try await Caller.with { caller in
            guard case .failure(let error) = try await Self.result(caller, at: server.url) else {
                Issue.record("the call to a stopped server succeeded")
                return
            }
            #expect(error.failure.code == .upstreamUnreachable && error.failure.retryable)
        }
    }
}
