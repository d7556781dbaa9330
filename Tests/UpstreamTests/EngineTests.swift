import Contract
import Glibc
import NIOCore
import Testing

@testable import Upstream

private let token = #"data: {"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}"# + "\n\n"
private let finish = #"data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"# + "\n\n"
private let usage = #"data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}"# + "\n\n"
private let done = "data: [DONE]\n\n"

@Suite(.timeLimit(.minutes(1)))
struct EngineTests {
    private static func stream(_ exchange: RawServer.Exchange) {
        exchange.beginStream()
        exchange.chunk(token)
        exchange.chunk(finish)
        exchange.chunk(usage + done)
        exchange.endStream()
    }

    /// Asks a server that answers by a script, once.
    private static func ask(
        settings: UpstreamSettings = UpstreamSettings(), _ script: @escaping RawServer.Script
    ) async throws -> Recording {
        let server = try await RawServer(script)
        let recording = try await Caller.with(settings: settings) { try await $0.ask(.at(server.url)) }
        try await server.stop()
        return recording
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

    @Test func aKeptConnectionThatDiedIsReplaced() async throws {
        let server = try await RawServer { exchange in
            Self.stream(exchange)
            exchange.channel.eventLoop.execute { exchange.close() }
        }
        try await Caller.with { caller in
            for number in 1...3 {
                let recording = try await caller.ask(.at(server.url))
                #expect(recording.result == .complete)
                #expect(recording.connected == 1)
                for await closed in server.closed where closed == number { break }
            }
        }
        #expect(server.accepted == 3)
        try await server.stop()
    }

    // MARK: cancel

    @Test(arguments: [Recorder.Step.answered, .produced]) func cancelClosesTheSocketAtOnce(at step: Recorder.Step) async throws {
        let server = try await RawServer { exchange in
            exchange.beginStream()
            exchange.chunk(token)
        }
        try await Caller.with { caller in
            let recording = try await caller.ask(.at(server.url)) { recorder, now in
                if now == step {
                    recorder.cancel()
                    recorder.cancel()
                }
            }
            #expect(recording.result == nil)
            for await _ in server.closed { break }
            #expect(server.open == 0)
            #expect(await caller.openCalls == 0)
        }
        try await server.stop()
    }

    @Test func theSocketIsClosedBeforeCancelReturns() async throws {
        let server = try await RawServer { exchange in
            exchange.beginStream()
            exchange.chunk(token)
        }
        try await Caller.with { caller in
            let port = server.port
            let recording = try await caller.ask(.at(server.url)) { recorder, step in
                guard step == .produced else { return }
                #expect(connections(to: port) == 1)
                recorder.call?.cancel()
                #expect(connections(to: port) == 0)
                recorder.finish()
            }
            #expect(recording.text == "Hello")
        }
        try await server.stop()
    }

    @Test func cancelBeforeTheDialDialsNothing() async throws {
        let server = try await RawServer(Self.stream)
        try await Caller.with { caller in
            try await caller.run { caller in
                let recorder = Recorder()
                try caller.begin(.at(server.url), recorder)
                recorder.call?.cancel()
            }
            // A turn later nothing is left that could dial.
            let recording = try await caller.ask(.at(server.url))
            #expect(recording.result == .complete)
        }
        #expect(server.requests.count == 1)
        #expect(server.accepted == 1)
        try await server.stop()
    }

    @Test func oneCallCancelsAnotherFromInside() async throws {
        let server = try await RawServer { exchange in
            exchange.beginStream()
            exchange.chunk(token)
            if exchange.head.contains("p0-second") {
                exchange.chunk(finish + done)
                exchange.endStream()
            }
        }
        try await Caller.with { caller in
            var second = GenerationRequest.hello
            second.jobID = JobID("p0-second")!
            let request = second
            let first = Recorder()
            try await caller.run { try $0.begin(.at(server.url), first) }
            let recording = try await caller.ask(.at(server.url), request) { _, step in
                if step == .produced { first.call?.cancel() }
            }
            #expect(recording.result == .complete)
            for await _ in server.closed { break }
            #expect(await caller.run { _ in first.recording.result } == nil)
            #expect(await caller.openCalls == 0)
        }
        try await server.stop()
    }

    @Test func aCallMayBeStartedFromInsideAnothersEnd() async throws {
        let server = try await RawServer(Self.stream)
        try await Caller.with { caller in
            let next = Recorder()
            let url = server.url
            _ = try await caller.ask(.at(url)) { _, step in
                guard step == .ended else { return }
                caller.assumeIsolated { caller in
                    do { try caller.begin(.at(url), next) } catch { Issue.record(error) }
                }
            }
            let recording = await caller.end(of: next)
            #expect(recording.result == .complete)
        }
        #expect(server.accepted == 1, "the second call finds the first one's connection")
        try await server.stop()
    }

    @Test func aConnectThatNobodyAnswersCanBeCancelled() async throws {
        let hole = try BlackHole()
        try await Caller.with { caller in
            try await caller.run { caller in
                let recorder = Recorder()
                try caller.begin(.at("http://127.0.0.1:\(hole.port)"), recorder)
                _ = caller.loop.schedule(after: .milliseconds(20)) { recorder.call?.cancel() }
            }
            while await caller.openCalls > 0 { await Task.yield() }
        }
    }

    @Test func aConnectThatNobodyAnswersEndsAtItsDeadline() async throws {
        let hole = try BlackHole()
        var settings = UpstreamSettings()
        settings.connectTimeout = .milliseconds(80)
        let recording = try await Caller.with(settings: settings) { try await $0.ask(.at("http://127.0.0.1:\(hole.port)")) }
        #expect(recording.failure?.failure.code == .upstreamUnreachable)
        #expect(recording.connected == 0)
    }

    @Test func closingTheClientClosesEverything() async throws {
        let server = try await RawServer { $0.beginStream() }
        try await Caller.with { caller in
            try await caller.run { caller in
                for _ in 0..<5 { try caller.begin(.at(server.url), Recorder()) }
            }
            while server.requests.count < 5 { await Task.yield() }
            await caller.run { $0.client.close() }
            var closed = 0
            for await _ in server.closed {
                closed += 1
                if closed == 5 { break }
            }
            #expect(await caller.openCalls == 0)
        }
        try await server.stop()
    }

    // MARK: what goes wrong

    @Test func refused() async throws {
        let server = try await RawServer(Self.stream)
        let url = server.url
        try await server.stop()
        let recording = try await Caller.with { try await $0.ask(.at(url)) }
        #expect(recording.failure?.failure.code == .upstreamUnreachable)
        #expect(recording.failure?.failure.retryable == true)
        #expect(recording.connected == 0)
    }

    @Test(
        arguments: [
            ("no answer at all", "", .upstreamDisconnected),
            ("half a head", "HTTP/1.1 200 OK\r\nContent-Ty", .upstreamDisconnected),
            (
                "a head only", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
                .upstreamDisconnected
            ),
            (
                "half an answer", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 5000\r\n\r\n" + token,
                .upstreamDisconnected
            ),
            ("no end", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + token, .upstreamTruncated),
            ("nothing in it", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", .upstreamTruncated),
            ("an end mark alone", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: [DONE]\n\n", .upstreamTruncated),
            ("no HTTP", "SSH-2.0-OpenSSH_9.2\r\n", .upstreamProtocol),
            ("a strange version", "HTTP/9.9 abc\r\n\r\n", .upstreamProtocol),
            (
                "bad chunks", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                .upstreamDisconnected
            ),
            ("a page", "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", .upstreamProtocol),
            ("a page of no type", "HTTP/1.1 200 OK\r\n\r\n<html>", .upstreamProtocol),
            ("prose", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nI am\nno stream\n", .upstreamProtocol),
            ("binary", "HTTP/1.1 200 OK\r\n\r\n\u{1}\u{2}\u{3}", .upstreamProtocol),
            ("JSON without choices", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"ok\":true}", .upstreamProtocol),
            ("a chunk that is no JSON", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {nonsense\n\n", .upstreamProtocol),
            ("a redirect", "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", .upstreamProtocol),
            (
                "an error inside a 200",
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + token
                    + "data: {\"error\":{\"message\":\"slow down\",\"type\":\"limit_requests\",\"code\":\"limit_requests\"}}\n\n",
                .rateLimited
            ),
        ] as [(String, String, FailureCode)])
    func aBrokenAnswer(_ name: String, _ bytes: String, _ code: FailureCode) async throws {
        let recording = try await Self.ask { exchange in
            exchange.channel.writeAndFlush(ByteBuffer(string: bytes)).whenComplete { _ in exchange.close() }
        }
        #expect(recording.failure?.failure.code == code, "\(name): \(String(describing: recording.result))")
        #expect(recording.failure?.failure.message.contains("canary") == false)
    }

    @Test(arguments: [finish + done, finish, finish + usage]) func anAnswerThatIsWholeOutlivesItsConnection(_ end: String) async throws {
        let recording = try await Self.ask { exchange in
            exchange.beginStream()
            exchange.chunk(token)
            let text = String(end.utf8.count, radix: 16) + "\r\n" + end + "\r\n"
            exchange.channel.writeAndFlush(ByteBuffer(string: text)).whenComplete { _ in exchange.close() }
        }
        #expect(recording.result == .complete)
        #expect(recording.text == "Hello")
    }

    @Test func anAnswerThatIsWholeDoesNotWaitForItsConnection() async throws {
        // The end mark came; the last chunk of the body never does.
        let recording = try await Self.ask { exchange in
            exchange.beginStream()
            exchange.chunk(token + finish + done)
        }
        #expect(recording.result == .complete)
    }

    @Test func anErrorFrameClosesTheConnection() async throws {
        let server = try await RawServer { exchange in
            exchange.beginStream()
            exchange.chunk(token + "data: {\"error\":\"out of memory\"}\n\n")
        }
        let recording = try await Caller.with { try await $0.ask(.at(server.url)) }
        #expect(recording.failure?.failure.code == .upstreamProtocol)
        #expect(recording.failure?.failure.message.contains("out of memory") == true)
        for await _ in server.closed { break }
        try await server.stop()
    }

    @Test(arguments: [String(repeating: "a: b\r\n", count: 20_000), "a: " + String(repeating: "b", count: 200_000)])
    func endlessHeaders(_ headers: String) async throws {
        let recording = try await Self.ask { $0.send("HTTP/1.1 200 OK\r\n" + headers) }
        #expect(recording.failure?.failure.code == .upstreamProtocol, "\(String(describing: recording.result))")
    }

    @Test func anEndlessLine() async throws {
        let recording = try await Self.ask { exchange in
            exchange.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: ")
            exchange.send([UInt8](repeating: 0x61, count: 3 << 20))
        }
        #expect(recording.failure?.failure.code == .upstreamProtocol)
        #expect(recording.failure?.failure.message.contains("longer than") == true)
    }

    @Test func anEndlessErrorBody() async throws {
        let recording = try await Self.ask { exchange in
            exchange.send("HTTP/1.1 500 Oops\r\nContent-Type: text/plain\r\n\r\n")
            exchange.send([UInt8](repeating: 0x61, count: 1 << 20))
        }
        #expect(recording.failure?.failure.code == .upstreamError)
        #expect((recording.failure?.failure.message.utf8.count ?? 0) < 1000)
    }

    @Test func anAnswerThatIgnoredStreaming() async throws {
        let body =
            #"{"choices":[{"index":0,"message":{"role":"assistant","content":"Hi","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}}]},"#
            + #""finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#
        let recording = try await Self.ask { $0.answer("200 OK", "", body) }
        #expect(recording.result == .complete)
        #expect(
            recording.outputs == [
                .text("Hi"), .toolCall(ToolCall(index: 0, callID: "a", name: "f", arguments: "{}")), .finished(.toolCalls),
                .usage(promptTokens: 1, completionTokens: 2),
            ])
    }

    @Test func anErrorAnswerTellsItsCircumstances() async throws {
        let body = #"{"error":{"message":"Slow down, sk-secret-canary","type":"limit_requests","code":"limit_requests"}}"#
        let recording = try await Self.ask { $0.answer("429 Too Many", "retry-after: 7\r\nX-Request-ID: abc\r\n", body) }
        let failure = try #require(recording.failure)
        #expect(failure.failure.code == .rateLimited && failure.failure.retryable && failure.failure.upstreamStatus == 429)
        #expect(failure.retryAfter == .seconds(7))
        #expect(failure.requestID == "abc")
        #expect(failure.failure.message.contains("Slow down") && !failure.failure.message.contains("canary"))
        #expect(recording.answered == 0 && recording.connected == 1)
    }

    // MARK: load

    @Test func aThousandAtOnce() async throws {
        let server = try await RawServer { exchange in
            exchange.beginStream()
            for _ in 0..<5 { exchange.chunk(token) }
            exchange.chunk(finish + done)
            exchange.endStream()
        }
        try await Caller.with { caller in
            try await withThrowingTaskGroup(of: Recording.self) { group in
                for _ in 0..<1000 { group.addTask { try await caller.ask(.at(server.url)) } }
                for try await recording in group {
                    #expect(recording.result == .complete)
                    #expect(recording.text == String(repeating: "Hello", count: 5))
                }
            }
            #expect(await caller.openCalls == 0)
        }
        try await server.stop()
    }

    @Test func aPausedCallIsNotReadFrom() async throws {
        let total = 32 << 20
        let server = try await RawServer { exchange in
            exchange.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + token)
            let comment = ByteBuffer(bytes: [UInt8](repeating: UInt8(ascii: ":"), count: 1 << 16).dropLast() + [0x0A])
            for _ in 0..<total >> 16 { exchange.channel.writeAndFlush(comment, promise: nil) }
            exchange.channel.writeAndFlush(ByteBuffer(string: token + finish + done)).whenComplete { _ in exchange.close() }
        }
        try await Caller.with { caller in
            let recorder = Recorder { recorder, step in
                if step == .produced, recorder.recording.outputs.count == 1 { recorder.call?.pauseReading() }
            }
            try await caller.run { try $0.begin(.at(server.url), recorder) }
            while await caller.run({ _ in recorder.recording.outputs.isEmpty }) { await Task.yield() }
            // What the sockets' buffers hold is a few megabytes of the 32: the rest waits at the server.
            for _ in 0..<50 { await caller.run { _ in } }
            #expect(await caller.run { _ in recorder.recording.outputs } == [.text("Hello")])
            #expect(server.open == 1)
            await caller.run { _ in recorder.call?.resumeReading() }
            #expect(await caller.end(of: recorder).result == .complete)
        }
        try await server.stop()
    }
}

/// How many sockets of this process are connected to a port.
private func connections(to port: Int) -> Int {
    (0..<4096).count { descriptor in
        var address = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isConnected = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getpeername(Int32(descriptor), $0, &length) == 0 }
        }
        return isConnected && Int(UInt16(bigEndian: address.sin_port)) == port
    }
}

/// A port that takes connections in no more: its queue is full and nobody accepts.
private final class BlackHole: Sendable {
    private let descriptors: [Int32]
    let port: Int

    init() throws {
        var descriptors: [Int32] = []
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        descriptors.append(listener)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let bound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                bind(listener, pointer, length) == 0 && listen(listener, 0) == 0 && getsockname(listener, pointer, &length) == 0
            }
        }
        try #require(bound)
        port = Int(UInt16(bigEndian: address.sin_port))
        for _ in 0..<4 {
            let filler = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
            descriptors.append(filler)
            withUnsafePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { _ = connect(filler, $0, length) }
            }
        }
        self.descriptors = descriptors
    }

    deinit { for descriptor in descriptors { close(descriptor) } }
}
