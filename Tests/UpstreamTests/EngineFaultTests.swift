import Contract
import JSONCodec
import NIOCore
import Testing

@testable import Upstream

/// Faults of upstreams and the resulting failures.
@Suite(.timeLimit(.minutes(10)))
struct EngineFaultTests {
    @Test func `a refused connection`() async throws {
        let server = try await RawServer(EngineScript.stream)
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
                "half an answer", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 5000\r\n\r\n" + EngineScript.token,
                .upstreamDisconnected
            ),
            ("no end", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + EngineScript.token, .upstreamTruncated),
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
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + EngineScript.token
                    + "data: {\"error\":{\"message\":\"slow down\",\"type\":\"limit_requests\",\"code\":\"limit_requests\"}}\n\n",
                .rateLimited
            ),
        ] as [(String, String, FailureCode)])
    func `a broken response`(_ name: String, _ bytes: String, _ code: FailureCode) async throws {
        let recording = try await EngineScript.ask { exchange in
            exchange.channel.writeAndFlush(ByteBuffer(string: bytes)).whenComplete { _ in exchange.close() }
        }
        #expect(recording.failure?.failure.code == code, "\(name): \(String(describing: recording.result))")
        #expect(recording.failure?.failure.message.contains("canary") == false)
    }

    @Test(arguments: [EngineScript.finish + EngineScript.done, EngineScript.finish, EngineScript.finish + EngineScript.usage])
    func `a complete answer survives the loss of its connection`(_ end: String) async throws {
        let recording = try await EngineScript.ask { exchange in
            exchange.beginStream()
            exchange.chunk(EngineScript.token)
            let text = String(end.utf8.count, radix: 16) + "\r\n" + end + "\r\n"
            exchange.channel.writeAndFlush(ByteBuffer(string: text)).whenComplete { _ in exchange.close() }
        }
        #expect(recording.result == .complete)
        #expect(recording.text == "Hello")
    }

    @Test func `a complete answer does not wait for the end of its body`() async throws {
        // The end mark is received, but not the last chunk of the body.
        let recording = try await EngineScript.ask { exchange in
            exchange.beginStream()
            exchange.chunk(EngineScript.token + EngineScript.finish + EngineScript.done)
        }
        #expect(recording.result == .complete)
    }

    @Test func `an error frame closes the connection`() async throws {
        let server = try await RawServer { exchange in
            exchange.beginStream()
            exchange.chunk(EngineScript.token + "data: {\"error\":\"out of memory\"}\n\n")
        }
        let recording = try await Caller.with { try await $0.ask(.at(server.url)) }
        #expect(recording.failure?.failure.code == .upstreamProtocol)
        #expect(recording.failure?.failure.message.contains("out of memory") == true)
        for await _ in server.closed { break }
        try await server.stop()
    }

    @Test(arguments: [String(repeating: "a: b\r\n", count: 20_000), "a: " + String(repeating: "b", count: 200_000)])
    func `the size of headers is limited`(_ headers: String) async throws {
        let recording = try await EngineScript.ask { $0.send("HTTP/1.1 200 OK\r\n" + headers) }
        #expect(recording.failure?.failure.code == .upstreamProtocol, "\(String(describing: recording.result))")
    }

    @Test func `the length of a line is limited`() async throws {
        let recording = try await EngineScript.ask { exchange in
            exchange.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: ")
            exchange.send([UInt8](repeating: 0x61, count: 3 << 20))
        }
        #expect(recording.failure?.failure.code == .upstreamProtocol)
        #expect(recording.failure?.failure.message.contains("longer than") == true)
    }

    @Test func `the size of an error body is limited`() async throws {
        let recording = try await EngineScript.ask { exchange in
            exchange.send("HTTP/1.1 500 Oops\r\nContent-Type: text/plain\r\n\r\n")
            exchange.send([UInt8](repeating: 0x61, count: 1 << 20))
        }
        #expect(recording.failure?.failure.code == .upstreamError)
        #expect((recording.failure?.failure.message.utf8.count ?? 0) < 1000)
    }

    @Test func `a response that is not streamed`() async throws {
        let body =
            #"{"choices":[{"index":0,"message":{"role":"assistant","content":"Hi","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}}]},"#
            + #""finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#
        let recording = try await EngineScript.ask { $0.answer("200 OK", "", body) }
        #expect(recording.result == .complete)
        #expect(
            recording.outputs == [
                .text("Hi"), .usage(promptTokens: 1, completionTokens: 2),
                .toolCall(ToolCall(index: 0, callID: "a", name: "f", arguments: "{}")), .finished(.toolCalls),
            ])
    }

    @Test func `the failure of an error response has its details`() async throws {
        let body = #"{"error":{"message":"Slow down, sk-secret-canary","type":"limit_requests","code":"limit_requests"}}"#
        let recording = try await EngineScript.ask { $0.answer("429 Too Many", "retry-after: 7\r\nX-Request-ID: abc\r\n", body) }
        let failure = try #require(recording.failure)
        #expect(failure.failure.code == .rateLimited && failure.failure.retryable && failure.failure.upstreamStatus == 429)
        #expect(failure.retryAfter == .seconds(7))
        #expect(failure.requestID == "abc")
        #expect(failure.failure.message.contains("Slow down") && !failure.failure.message.contains("canary"))
        #expect(recording.outputs.isEmpty && recording.connected == 1)
    }
}
