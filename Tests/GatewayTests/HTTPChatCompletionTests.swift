import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

@testable import Gateway
@testable import JobQueue

private let chat = #"{"model":"asked","messages":[{"role":"user","content":"hi"}]}"#
private let streamed =
    #"{"model":"asked","messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true}}"#
private let usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)

@Suite(.redis, .timeLimit(.minutes(10))) struct HTTPChatCompletionTests {
    @Test func `a collected completion`() async throws {
        try await withHTTPLab { lab in
            async let answer = lab.post("/v1/chat/completions", chat)
            let worker = try await lab.claim()
            #expect(worker.job.priority == .interactive && worker.job.owner == "tenant-a")
            #expect(JSON.object(worker.job.request).text == chat)
            try await worker.write(.upstream(name: "u", model: "real"), .text("he"), .text("llo"))
            try await worker.end(.finished(.stop, usage))
            let whole = try await answer
            #expect(whole.status == 200 && whole.headers["x-sluice-job"] == worker.job.id.rawValue)
            #expect(whole.json?["id"] == .string("chatcmpl-\(worker.job.id)") && whole.json?["model"] == "real")
            #expect(whole.json?["choices"]?[0]?["message"]?["content"] == "hello")
        }
    }

    @Test func `a streamed completion`() async throws {
        try await withHTTPLab { lab in
            let connection = try await RawHTTPConnection(lab.port)
            try await connection.request("POST", "/v1/chat/completions", body: streamed)
            let worker = try await lab.claim()
            try await worker.write(.upstream(name: "u", model: "real"), .text("he"))
            try await connection.wait(for: #""delta":{"role":"assistant","content":"he"}"#)
            #expect(connection.received.value.lowercased().contains("x-sluice-job: \(worker.job.id)".lowercased()))
            try await worker.write(.text("llo"))
            try await worker.end(.finished(.stop, usage))
            try await connection.wait(for: "data: [DONE]\n\n")
            #expect(connection.received.value.contains(#""usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}"#))
            // The connection stays open.
            try await connection.request("GET", "/v1/models")
            try await connection.wait(for: #""object":"list""#)
            try await connection.close()
            #expect(try await lab.queue.record(worker.job.id)?.state == .finished)
        }
    }

    @Test func `the head of a stream does not wait for the first output`() async throws {
        try await withHTTPLab(settings: { $0.streamHeadDelay = .zero }) { lab in
            let connection = try await RawHTTPConnection(lab.port)
            try await connection.request("POST", "/v1/chat/completions", body: streamed)
            // No worker has claimed the job.
            try await connection.wait(for: "text/event-stream")
            let worker = try await lab.claim()
            try await worker.end(.failed(Failure(.rateLimited, "slow down", upstreamStatus: 429), .none))
            try await connection.wait(for: #""code":"rate_limited""#)
            #expect(!connection.received.value.contains("[DONE]"))
            try await connection.close()
        }
    }

    @Test(arguments: [false, true]) func `a failure before output is an HTTP status`(streams: Bool) async throws {
        try await withHTTPLab(settings: { $0.streamHeadDelay = .seconds(40) }) { lab in
            async let answer = lab.post("/v1/chat/completions", streams ? streamed : chat)
            let worker = try await lab.claim()
            try await worker.end(.failed(Failure(.rateLimited, "slow down", upstreamStatus: 429), .none))
            let failed = try await answer
            #expect(failed.status == 429 && failed.headers["retry-after"] == "1")
            #expect(failed.headers["x-sluice-job"] == worker.job.id.rawValue)
            #expect(failed.json == ["error": ["message": "slow down", "type": "rate_limit_error", "code": "rate_limited"]])
        }
    }

    @Test func `a failure after output is an error chunk`() async throws {
        try await withHTTPLab { lab in
            async let answer = lab.post("/v1/chat/completions", streamed)
            let worker = try await lab.claim()
            try await worker.write(.text("he"))
            try await worker.end(.failed(Failure(.upstreamDisconnected, "broke"), usage))
            let stream = try await answer
            #expect(stream.status == 200 && stream.body.contains(#""code":"upstream_disconnected""#) && !stream.body.contains("[DONE]"))
        }
    }

    /// The job's state when the client disconnects.
    enum Moment: String, CaseIterable { case queued, claimed, streaming }

    @Test(arguments: Moment.allCases, [false, true])
    func `a disconnect interrupts the job`(moment: Moment, streams: Bool) async throws {
        try await withHTTPLab { lab in
            let connection = try await RawHTTPConnection(lab.port)
            try await connection.request("POST", "/v1/chat/completions", body: streams ? streamed : chat)
            let observer = try await PrivateRedis.current.connect()
            let cancel = try await observer.subscribe(lab.queue.keys.cancel(partition: 0))
            if moment == .queued {
                let queue = lab.queue.keys.queue(.interactive, partition: 0)
                let waiting = try await until("the job in its queue") {
                    let length = try await PrivateRedis.current.command("XLEN", queue).integer ?? 0
                    return length > 0 ? length : nil
                }
                #expect(waiting == 1)
                let entry = try await PrivateRedis.current.command("XRANGE", queue, "-", "+")
                try await connection.close()
                let text = try #require(entry.array?.first?.array?[1].array?[1].string)
                let id = try #require(try JSON(parsing: text)["id"]?.string.flatMap(JobID.init))
                try await until("the interrupt") { try await lab.queue.record(id)?.state == .interrupted }
                #expect(try await lab.queue.record(id)?.fields["reason"] == "CLIENT_GONE")
            } else {
                let worker = try await lab.claim()
                if moment == .streaming {
                    try await worker.write(.text("he"))
                    if streams { try await connection.wait(for: #""content":"he""#) }
                }
                try await connection.close()
                let message = try await first(of: cancel)
                #expect(message == #"{"id":"\#(worker.job.id)","reason":"CLIENT_GONE"}"#)
                try await worker.end(.interrupted(Interruption(reason: "CLIENT_GONE", phase: .streaming, usage: usage)))
            }
            await observer.close()
        }
    }

    @Test func `a client that does not read is disconnected`() async throws {
        try await withHTTPLab(settings: { $0.outgoingMaximum = 100_000 }) { lab in
            let connection = try await RawHTTPConnection(lab.port, autoRead: false)
            try await connection.request("POST", "/v1/chat/completions", body: streamed)
            let worker = try await lab.claim()
            let observer = try await PrivateRedis.current.connect()
            let cancel = try await observer.subscribe(lab.queue.keys.cancel(partition: 0))
            let piece = String(repeating: "x", count: 50_000)
            let writing = Task {
                // More output than the socket buffers can hold; the loop ends with the interrupt.
                while !Task.isCancelled { try await worker.write(.text(piece)) }
            }
            #expect(try await first(of: cancel).contains("CLIENT_GONE"))
            writing.cancel()
            _ = await writing.result
            await observer.close()
            try await connection.close()
        }
    }

    /// The first message of a subscription; fails when none is received before the deadline.
    private func first(of messages: AsyncStream<RawMessage>) async throws -> String {
        try await withThrowingTaskGroup(of: String.self) { group in
            group.addTask {
                for await message in messages { return message.text }
                throw NothingCame(description: "the subscription ended")
            }
            group.addTask {
                try await Task.sleep(for: .testDeadline)
                throw NothingCame(description: "no message on the cancel channel before the deadline")
            }
            defer { group.cancelAll() }
            return try await group.next() ?? ""
        }
    }
}

private struct NothingCame: Error {
    let description: String
}
