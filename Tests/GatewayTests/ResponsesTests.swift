import Contract
import JSONCodec
import NIOHTTP1
import TestSupport
import Testing

@testable import Gateway
@testable import JobQueue

private let usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)

@Suite(.redis, .timeLimit(.minutes(10))) struct ResponsesTests {
    /// Creates a response in the background and claims its job.
    private func background(_ lab: HTTPLab, _ members: String = "") async throws -> (String, PlayedJob) {
        let created = try await lab.post("/v1/responses", #"{"input":"hi","background":true\#(members)}"#)
        #expect(created.status == 200 && created.json?["status"] == "queued", "\(created.body)")
        return (try #require(created.json?["id"]?.string), try await lab.claim())
    }

    @Test func `a response in the background is shown, resumed and kept as long as it is stored`() async throws {
        try await withHTTPLab(settings: { $0.responseTTL = .seconds(5_000) }) { lab in
            let (id, worker) = try await background(lab)
            #expect(id == "resp_\(worker.job.id)" && worker.job.priority == .standard)
            try await worker.write(.text("he"))
            #expect(try await lab.get("/v1/responses/\(id)").json?["status"] == "in_progress")
            async let stream = lab.get("/v1/responses/\(id)?stream=true&starting_after=3")
            try await worker.write(.text("llo"))
            try await worker.end(.finished(.stop, usage))
            let numbers = try await stream.body.matches(of: /"sequence_number":(\d+)/).compactMap { Int($0.output.1) }
            #expect(numbers == Array(4...(numbers.last ?? 0)) && numbers.count > 4)
            let shown = try await lab.get("/v1/responses/\(id)")
            #expect(shown.json?["status"] == "completed" && shown.json?["output"]?[0]?["content"]?[0]?["text"] == "hello")
            for key in [lab.queue.keys.log(worker.job.id), lab.queue.keys.record(worker.job.id)] {
                #expect(try await PrivateRedis.current.command("TTL", key).integer ?? 0 > 4_000)
            }
        }
    }

    @Test func `another tenant's response is unknown`() async throws {
        try await withHTTPLab { lab in
            let (id, worker) = try await background(lab)
            let unknown = try await lab.get("/v1/responses/resp_p0-unknown", key: "tenant-b-test-key")
            for path in ["/v1/responses/\(id)", "/v1/responses/\(id)/input_items", "/v1/responses/\(id)?stream=true"] {
                let answer = try await lab.get(path, key: "tenant-b-test-key")
                #expect(answer.status == 404 && answer.json?["error"]?["code"] == unknown.json?["error"]?["code"], "\(path)")
            }
            #expect(try await lab.post("/v1/responses/\(id)/cancel", "", key: "tenant-b-test-key").status == 404)
            let body = #"{"input":"x","previous_response_id":"\#(id)"}"#
            #expect(try await lab.post("/v1/responses", body, key: "tenant-b-test-key").status == 400)
            #expect(try await lab.queue.record(worker.job.id)?.state == .running)
            try await worker.end(.finished(.stop, usage))
        }
    }

    @Test func `a cancellation answers when the job has ended`() async throws {
        try await withHTTPLab { lab in
            let created = try await lab.post("/v1/responses", #"{"input":"hi","background":true}"#)
            let id = try #require(created.json?["id"]?.string)
            // Queued: the interrupt itself ends the job.
            #expect(try await lab.post("/v1/responses/\(id)/cancel", "").json?["status"] == "cancelled")
            let (second, worker) = try await background(lab)
            async let cancelled = lab.post("/v1/responses/\(second)/cancel", "")
            try await until("the interrupt") {
                try await PrivateRedis.current.command("EXISTS", lab.queue.keys.interrupt(worker.job.id)).integer == 1
            }
            try await worker.end(.interrupted(Interruption(reason: "USER_STOP", phase: .streaming, usage: usage)))
            #expect(try await cancelled.json?["status"] == "cancelled")
            #expect(try await lab.post("/v1/responses/\(second)/cancel", "").json?["sluice"]?["reason"] == "USER_STOP")
        }
    }

    @Test func `a conversation holds the items and answers before it`() async throws {
        try await withHTTPLab { lab in
            let (first, worker) = try await background(lab)
            let early = try await lab.post("/v1/responses", #"{"input":"x","previous_response_id":"\#(first)"}"#)
            #expect(early.status == 400 && early.body.contains("has not ended"))
            try await worker.write(.text("hello"), .toolCall(ToolCall(index: 0, callID: "c", name: "f", arguments: "{}")))
            try await worker.end(.finished(.toolCalls, usage))
            let (_, next) = try await background(lab, #","instructions":"be brief","previous_response_id":"\#(first)""#)
            #expect(
                next.job.request["messages"]?.array?.map { $0["role"]?.string } == ["system", "user", "assistant", "tool", "user"])
            #expect(next.job.request["messages"]?[2]?["content"] == "hello")
            try await next.end(.finished(.stop, usage))
        }
    }

    @Test func `a disconnect interrupts a response in the foreground, and not one in the background`() async throws {
        try await withHTTPLab { lab in
            for isBackground in [false, true] {
                let connection = try await RawHTTPConnection(lab.port)
                try await connection.request(
                    "POST", "/v1/responses", body: #"{"input":"hi","stream":true,"background":\#(isBackground)}"#)
                let worker = try await lab.claim()
                try await worker.write(.text("he"))
                try await connection.wait(for: #""delta":"he""#)
                try await connection.close()
                if isBackground {
                    try await worker.end(.finished(.stop, usage))
                    #expect(try await lab.get("/v1/responses/resp_\(worker.job.id)").json?["status"] == "completed")
                } else {
                    try await until("the interrupt") {
                        try await PrivateRedis.current.command("EXISTS", lab.queue.keys.interrupt(worker.job.id)).integer == 1
                    }
                    try await worker.end(.interrupted(Interruption(reason: "CLIENT_GONE", phase: .streaming, usage: usage)))
                }
            }
        }
    }

    @Test func `a tenant's responses are bounded by bytes, and deletion makes room`() async throws {
        try await withHTTPLab(settings: { $0.responseBytesPerTenant = 6_000 }) { lab in
            let (id, worker) = try await background(lab)
            try await worker.end(.finished(.stop, usage))
            let large = #"{"input":"\#(String(repeating: "x", count: 4_500))","background":true}"#
            #expect(try await lab.post("/v1/responses", large).status == 429)
            #expect(try await lab.post("/v1/responses", large, key: "tenant-b-test-key").status == 200)
            let deleted = try await HTTPCall.send(
                .DELETE, lab.port, "/v1/responses/\(id)", headers: ["authorization": "Bearer tenant-a-test-key"])
            #expect(deleted.json?["deleted"] == true)
            #expect(try await lab.get("/v1/responses/\(id)").status == 404)
            #expect(try await lab.post("/v1/responses", large).status == 200)
        }
    }

    @Test func `input items are listed in pages`() async throws {
        try await withHTTPLab { lab in
            let created = try await lab.post(
                "/v1/responses",
                #"{"background":true,"input":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}]}"#
            )
            let id = try #require(created.json?["id"]?.string)
            func page(_ query: String) async throws -> JSON? { try await lab.get("/v1/responses/\(id)/input_items\(query)").json }
            let latest = try await page("?limit=2")
            #expect(latest?["data"]?.array?.map { $0["content"]?[0]?["text"]?.string } == ["c", "b"] && latest?["has_more"] == true)
            let rest = try await page("?limit=2&after=\(latest?["last_id"]?.string ?? "")")
            #expect(rest?["data"]?.array?.map { $0["content"]?[0]?["text"]?.string } == ["a"] && rest?["has_more"] == false)
            #expect(try await page("?order=asc")?["first_id"] == rest?["last_id"])
        }
    }

    @Test func `an idempotency key repeats a response in the background`() async throws {
        try await withHTTPLab { lab in
            let body = #"{"input":"hi","background":true}"#
            let first = try await lab.post("/v1/responses", body, headers: ["idempotency-key": "k"])
            let again = try await lab.post("/v1/responses", body, headers: ["idempotency-key": "k"])
            #expect(first.status == 200 && first.json?["id"] == again.json?["id"])
            #expect(
                try await lab.post("/v1/responses", #"{"input":"x","background":true}"#, headers: ["idempotency-key": "k"]).status == 409)
        }
    }

    @Test func `a client that disconnects while earlier responses are loaded leaves no job`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            let headers = ["authorization": "Bearer tenant-a-test-key"]
            let created = try await HTTPCall.post(
                gateway.port, "/v1/responses", ["input": "first", "background": true], headers: headers)
            let id = try #require(created.json?["id"])
            try await lab.claim().end(.finished(.stop, usage))
            let redis = PrivateRedis.current
            redis.freeze()
            defer { redis.thaw() }
            let connection = try await RawHTTPConnection(gateway.port)
            let abandoned: JSON = ["input": "abandoned", "previous_response_id": id]
            try await connection.request("POST", "/v1/responses", body: abandoned.text)
            try await connection.close()
            // A later connection is served after the end of this one was read.
            #expect(try await HTTPCall.get(gateway.port, "/healthz").status == 200)
            redis.thaw()
            async let answer = HTTPCall.post(
                gateway.port, "/v1/responses", ["input": "next", "previous_response_id": id], headers: headers)
            let next = try await lab.claim()
            #expect(next.job.request["messages"]?.array?.last?["content"] == "next")
            try await next.end(.finished(.stop, usage))
            _ = try await answer
            let queue = lab.queue.keys.queue(.interactive, partition: 0)
            #expect(try await redis.command("XLEN", queue) == .integer(0), "no other job was submitted")
        }
    }
}
