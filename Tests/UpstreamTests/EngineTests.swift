import Contract
import NIOCore
import Testing

@testable import Upstream

private let tokens = #"data: {"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}"# + "\n\n"
private let finish = #"data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"# + "\n\n"
private let usage = #"data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}"# + "\n\n"
private let done = "data: [DONE]\n\n"

@Suite(.timeLimit(.minutes(1)))
struct EngineTests {
    private static func stream(_ exchange: RawServer.Exchange) {
        exchange.beginStream()
        exchange.chunk(tokens)
        exchange.chunk(finish)
        exchange.chunk(usage + done)
        exchange.endStream()
    }

    @Test func aWholeAnswer() async throws {
        let server = try await RawServer(Self.stream)
        let recording = try await Caller.with { try await $0.ask(.at(server.url)) }
        #expect(recording.result == .complete)
        #expect(recording.connected == 1 && recording.answered == 1 && recording.chunks == 1)
        #expect(recording.outputs == [.text("Hello"), .finished(.stop), .usage(promptTokens: 3, completionTokens: 1)])
        let request = try #require(server.requests.first)
        #expect(request.head.hasPrefix("POST /v1/chat/completions HTTP/1.1"))
        #expect(request.head.contains("Authorization: Bearer sk-secret-canary"))
        #expect(request.head.contains("x-request-id: p0-test"))
        #expect(!request.head.contains("Expect"))
        #expect(
            request.body
                == #"{"model":"qwen-plus","messages":[{"role":"user","content":"hello"}],"stream":true,"stream_options":{"include_usage":true}}"#
        )
        try await server.stop()
    }

    @Test func connectionsAreUsedAgain() async throws {
        let server = try await RawServer(Self.stream)
        try await Caller.with { caller in
            for _ in 0..<20 {
                let recording = try await caller.ask(.at(server.url))
                #expect(recording.result == .complete)
            }
            #expect(await caller.openCalls == 0)
        }
        #expect(server.accepted == 1)
        #expect(server.requests.count == 20)
        try await server.stop()
    }

    @Test func cancelClosesTheSocketAtOnce() async throws {
        let server = try await RawServer { exchange in
            exchange.beginStream()
            exchange.chunk(tokens)
        }
        try await Caller.with { caller in
            let recording = try await caller.ask(.at(server.url)) { recorder, step in
                if step == .produced { recorder.cancel() }
            }
            #expect(recording.text == "Hello" && recording.result == nil)
            for await _ in server.closed { break }
            #expect(server.open == 0)
            #expect(await caller.openCalls == 0)
        }
        try await server.stop()
    }
}
