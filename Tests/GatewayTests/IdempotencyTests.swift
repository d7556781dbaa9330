import Contract
import JSONCodec
import TestSupport
import Testing

@testable import Gateway
@testable import JobQueue

/// `Idempotency-Key` on the APIs whose answer comes on the client's connection. The test acts as the worker.
@Suite(.redis, .timeLimit(.minutes(10))) struct IdempotencyTests {
    private static let usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)
    private static let headers = ["idempotency-key": "k-1"]

    @Test(arguments: [
        ("/v1/chat/completions", #""messages":[{"role":"user","content":"x"}]"#),
        ("/v1/messages", #""max_tokens":9,"messages":[{"role":"user","content":"x"}]"#), ("/v1/responses", #""input":"x""#),
    ]) func `a repeated request gets the answer of the first one`(path: String, members: String) async throws {
        try await withHTTPLab { lab in
            let body = #"{"model":"m",\#(members)}"#
            async let first = lab.post(path, body, headers: Self.headers)
            let job = try await lab.claim()
            async let second = lab.post(path, body, headers: Self.headers)
            try await job.write(.upstream(name: "u", model: "m"), .text("once"))
            try await job.end(.finished(.stop, Self.usage))
            for answer in [try await first, try await second, try await lab.post(path, body, headers: Self.headers)] {
                #expect(answer.status == 200 && answer.body.contains("once"), "\(answer.body)")
                #expect(answer.headers["x-sluice-job"] == job.job.id.rawValue)
            }
            let streamed = try await lab.post(path, #"{"model":"m","stream":true,\#(members)}"#, headers: Self.headers)
            #expect(streamed.status == 409, "\(streamed.body)")
            #expect(try await PrivateRedis.current.command("XLEN", lab.queue.keys.queue(.interactive, partition: 0)).integer == 0)
            // Another tenant's key is another key.
            async let other = lab.post(path, body, key: "tenant-b-test-key", headers: Self.headers)
            let another = try await lab.claim()
            #expect(another.job.id != job.job.id)
            try await another.end(.finished(.stop, Self.usage))
            #expect(try await other.status == 200)
            _ = try await PrivateRedis.current.command("DEL", lab.queue.keys.record(job.job.id))
            #expect(try await lab.post(path, body, headers: Self.headers).status == 409, "the answer has expired")
        }
    }

    @Test func `a request whose client left runs anew`() async throws {
        try await withHTTPLab { lab in
            let body = #"{"model":"m","messages":[{"role":"user","content":"x"}]}"#
            let left = try await RawHTTPConnection(lab.port)
            try await left.request("POST", "/v1/chat/completions", body: body, headers: ["Idempotency-Key: k-1"])
            let job = try await lab.claim()
            try await left.close()
            let key = lab.queue.keys.interrupt(job.job.id)
            try await until("the interrupt") { try await PrivateRedis.current.command("GET", key).string?.contains("CLIENT_GONE") }
            try await job.end(.interrupted(Interruption(reason: "CLIENT_GONE", phase: .waiting, usage: Self.usage)))
            async let again = lab.post("/v1/chat/completions", body, headers: Self.headers)
            let second = try await lab.claim()
            #expect(second.job.id != job.job.id)
            try await second.write(.text("anew"))
            try await second.end(.finished(.stop, Self.usage))
            #expect(try await again.body.contains("anew"))
        }
    }
}
