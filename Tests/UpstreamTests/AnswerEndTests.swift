import Contract
import NIOCore
import Testing

@testable import CurlTransport
@testable import Upstream

/// When an answer is over: upstreams that leave their connection open after the finish reason or the end mark.
@Suite(.timeLimit(.minutes(10)))
struct AnswerEndTests {
    private static func token(_ kind: UpstreamConfiguration.Kind) -> String {
        switch kind {
        case .openai: EngineScript.token
        case .dashscope: #"data: {"output":{"choices":[{"message":{"content":"Hello"},"finish_reason":"null"}]}}"# + "\n\n"
        case .anthropic: #"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}"# + "\n\n"
        case .ollama: #"{"message":{"content":"Hello"},"done":false}"# + "\n"
        }
    }

    private static func finish(_ kind: UpstreamConfiguration.Kind) -> String {
        switch kind {
        case .openai: EngineScript.finish
        case .dashscope: #"data: {"output":{"choices":[{"message":{"content":""},"finish_reason":"stop"}]}}"# + "\n\n"
        case .anthropic: #"data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}"# + "\n\n"
        case .ollama: #"{"message":{"content":""},"done":true,"done_reason":"stop"}"# + "\n"
        }
    }

    /// Sends the parts of a response as chunks, and keeps the connection open.
    private static func ask(
        _ kind: UpstreamConfiguration.Kind = .openai, _ react: @escaping @Sendable (Recorder, Recorder.Step) -> Void = { _, _ in },
        _ script: @escaping RawServer.Script
    ) async throws -> Recording {
        let server = try await RawServer { exchange in
            exchange.beginStream()
            script(exchange)
        }
        let recording = try await Caller.with { try await $0.ask(.at(server.url, kind: kind), .hello, react) }
        try await server.stop()
        return recording
    }

    @Test(arguments: UpstreamConfiguration.Kind.allCases)
    func `an open connection after the finish reason is not waited for`(_ kind: UpstreamConfiguration.Kind) async throws {
        let recording = try await Self.ask(kind) { exchange in
            exchange.chunk(Self.token(kind))
            exchange.chunk(Self.finish(kind))
        }
        #expect(recording.result == .complete && recording.text == "Hello")
        #expect(recording.outputs.last == .finished(.stop))
    }

    @Test func `heartbeats after the finish reason do not prolong the answer`() async throws {
        let recording = try await Self.ask { exchange in
            exchange.chunk(EngineScript.token + EngineScript.finish)
            exchange.channel.eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: .milliseconds(50)) { task in
                guard exchange.channel.isActive else { return task.cancel() }
                exchange.chunk(": ping\n\n")
            }
        }
        #expect(recording.result == .complete && recording.text == "Hello")
    }

    @Test func `output and usage after an early finish reason belong to the answer`() async throws {
        let recording = try await Self.ask { exchange in
            exchange.chunk(EngineScript.finish)
            exchange.chunk(EngineScript.token)
            exchange.chunk(EngineScript.finish.replacing("stop", with: "length"))
            exchange.chunk(EngineScript.usage)
        }
        #expect(recording.result == .complete && recording.text == "Hello")
        #expect(recording.outputs.contains(.usage(promptTokens: 3, completionTokens: 1)))
        #expect(recording.outputs.last == .finished(.length))
    }

    @Test(arguments: [
        (UpstreamConfiguration.Kind.openai, EngineScript.done), (.anthropic, "data: {\"type\":\"message_stop\"}\n\n"),
    ])
    func `an end mark alone is no answer, whether the connection stays open or not`(_ kind: UpstreamConfiguration.Kind, _ mark: String)
        async throws
    {
        for isOpen in [true, false] {
            let recording = try await Self.ask(kind) { exchange in
                exchange.chunk(mark)
                if !isOpen { exchange.endStream() }
            }
            #expect(recording.failure?.failure.code == .upstreamTruncated && recording.outputs.isEmpty, "open: \(isOpen)")
            let answered = try await Self.ask(kind) { exchange in
                exchange.chunk(Self.token(kind) + mark)
                if !isOpen { exchange.endStream() }
            }
            #expect(answered.result == .complete && answered.outputs == [.text("Hello"), .finished(.stop)], "open: \(isOpen)")
        }
    }

    @Test func `a finish reason that means a failure ends an open connection`() async throws {
        let recording = try await Self.ask { $0.chunk(EngineScript.token + EngineScript.finish.replacing("stop", with: "network_error")) }
        #expect(recording.failure?.failure.code == .upstreamError && recording.text == "Hello")
    }

    /// Back pressure stops the time after the finish reason; it starts anew when reading is resumed.
    @Test func `a paused answer ends after it was resumed`() async throws {
        let recording = try await Self.ask(
            .openai,
            { recorder, step in
                guard step == .produced, let call = recorder.call else { return }
                call.pauseReading()
                #expect(!call.isDraining)
                call.resumeReading()
                #expect(call.isDraining)
            }, { $0.chunk(EngineScript.token + EngineScript.finish) })
        #expect(recording.result == .complete && recording.text == "Hello")
    }
}
