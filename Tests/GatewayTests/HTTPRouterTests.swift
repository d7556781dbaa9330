import Contract
import Crypto
import Foundation
import JobQueue
import TestSupport
import Testing

@testable import Gateway

private let chat = #"{"model":"asked","messages":[{"role":"user","content":"hi"}]}"#
private let streamed =
    #"{"model":"asked","messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true}}"#
private let usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)

@Suite(.redis, .timeLimit(.minutes(2))) struct HTTPRouterTests {
    @Test func healthNeedsNoKey() async throws {
        try await withHTTPLab { lab in
            #expect(try await lab.get("/healthz", key: nil).status == 200)
            #expect(try await lab.get("/readyz", key: nil).status == 200)
            #expect(try await lab.get("/metrics", key: nil).body == "sluice_up 1\n")
            lab.readiness.startDraining()
            let answer = try await lab.get("/readyz", key: nil)
            #expect(answer.status == 503 && answer.json?["reason"] == "draining")
            #expect(try await lab.post("/v1/jobs", #"{"request":{}}"#).status == 503)
            #expect(try await lab.post("/v1/chat/completions", chat).headers["retry-after"] == "1")
            #expect(try await lab.get("/healthz", key: nil).status == 200)
        }
    }

    @Test func everyErrorIsJSON() async throws {
        try await withHTTPLab(settings: { $0.messageMaximum = 1_000 }) { lab in
            let large = #"{"request":{"x":""# + String(repeating: "x", count: 1_000) + #""}}"#
            let table: [(HTTPAnswer, Int, String)] = [
                (try await lab.get("/nothing", key: nil), 404, "not_found"),
                (try await lab.get("/v1/nothing"), 404, "not_found"),
                (try await lab.get("/v1/jobs"), 405, "method_not_allowed"),
                (try await lab.post("/healthz", ""), 405, "method_not_allowed"),
                (try await lab.get("/v1/models", key: nil), 401, "invalid_api_key"),
                (try await lab.get("/v1/models", key: "wrong"), 401, "invalid_api_key"),
                (try await lab.post("/v1/jobs", large), 413, "payload_too_large"),
                (try await lab.post("/v1/jobs", "{"), 400, "invalid_request"),
                (try await lab.get("/v1/jobs/p0-nobody"), 404, "job_not_found"),
                (try await lab.get("/v1/jobs/p0-nobody/events"), 404, "job_not_found"),
                (try await lab.post("/v1/chat/completions", #"{"messages":[{}],"n":3}"#), 400, "unsupported_parameter"),
            ]
            for (answer, status, code) in table {
                #expect(answer.status == status, "\(answer)")
                #expect(answer.json?["error"]?["code"] == .string(code), "\(answer)")
                #expect(answer.json?["error"]?["message"]?.string?.isEmpty == false && answer.json?["error"]?["type"]?.string != nil)
            }
            #expect(table[4].0.headers["www-authenticate"] == #"Bearer realm="sluice""#)
            #expect(table[5].0.headers["www-authenticate"]?.contains("invalid_token") == true)
            #expect(table[3].0.headers["allow"] == "GET, HEAD")
            let models = try await lab.get("/v1/models").json
            #expect(models?["object"] == "list" && models?["data"]?[1]?["id"] == "two")
        }
    }

    @Test func whereNoKeyIsAskedForOriginsAre() async throws {
        try await withHTTPLab(settings: { settings in
            settings.authentication = AuthenticationSettings()
            settings.authentication.none = true
        }) { lab in
            let own = "http://127.0.0.1:\(lab.port)"
            #expect(try await lab.get("/v1/models", key: nil).status == 200)
            #expect(try await lab.get("/v1/models", key: nil, headers: ["origin": own]).status == 200)
            let foreign = try await lab.post("/v1/jobs", #"{"request":{}}"#, key: nil, headers: ["origin": "https://evil.example"])
            #expect(foreign.status == 403 && foreign.json?["error"]?["code"] == "origin_refused")
            #expect(try await lab.get("/", key: nil).body.contains(#"data-asks-for-key="false""#))
        }
    }

    @Test func thePageNeedsNothingElseAndRunsOnlyItsOwnScript() async throws {
        try await withHTTPLab { lab in
            let page = try await lab.get("/", key: nil)
            #expect(page.status == 200 && page.headers["content-type"] == "text/html; charset=utf-8")
            #expect(page.body.contains(#"data-asks-for-key="true""#))
            let policy = try #require(page.headers["content-security-policy"])
            #expect(policy.hasPrefix("default-src 'none'; script-src 'sha256-") && !policy.contains("unsafe"))
            let script = try #require(page.body.components(from: "<script>", to: "</script>"))
            let digest = Data(SHA256.hash(data: Data(script.utf8))).base64EncodedString()
            #expect(policy.contains("script-src 'sha256-\(digest)'"))
            for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "https://", "src="] {
                #expect(!script.contains(forbidden), "\(forbidden)")
            }
        }
    }

    @Test func aJobFromSubmissionToRecord() async throws {
        try await withHTTPLab { lab in
            let submitted = try await lab.post("/v1/jobs", #"{"request":{"model":"m","messages":[]},"class":"batch"}"#)
            #expect(submitted.status == 202)
            let id = try #require(submitted.json?["id"]?.string)
            #expect(submitted.headers["location"] == "/v1/jobs/\(id)")
            let path = "/v1/jobs/\(id)"
            let queued = try await lab.get(path).json
            #expect(queued?["state"] == "queued" && queued?["class"] == "batch" && queued?["owner"] == "tenant-a")
            #expect(queued?["gateway"] == "lab-gateway" && queued?["submitted_ms"]?.integer != nil)
            let worker = try await lab.claim()
            #expect(worker.job.owner == "tenant-a" && worker.job.id.rawValue == id)
            try await worker.write(.upstream(name: "u", model: "m"), .text("hello"))
            try await worker.end(.finished(.stop, usage))
            let record = try await lab.get(path).json
            #expect(record?["state"] == "finished" && record?["attempt"] == 1)
            #expect(record?["usage"] == ["prompt_tokens": 1, "completion_tokens": 2, "estimated": false])
            // Another tenant's answers are those for an unknown job.
            for suffix in ["", "/events"] {
                let foreign = try await lab.get(path + suffix, key: "key-b")
                let unknown = try await lab.get("/v1/jobs/p0-unknown" + suffix)
                #expect(foreign.status == 404 && foreign.body == unknown.body)
            }
        }
    }

    @Test func nobodysJobIsUnknown() async throws {
        try await withHTTPLab { lab in
            let job = Job(id: try #require(JobID("p0-by-hand")), priority: .standard, request: JSONObject())
            #expect(try await lab.queue.submit(job, options: SubmitOptions()) == .accepted)
            #expect(try await lab.get("/v1/jobs/p0-by-hand").status == 404)
            let answer = try await lab.post("/v1/jobs/p0-by-hand/interrupt", "{}")
            #expect(answer.status == 200 && answer.body == #"{"id":"p0-by-hand","state":"unknown","status":"FAILED"}"#)
            #expect(try await lab.queue.record(job.id)?.state == .queued)
        }
    }

    @Test func interruptAnswersWhatItFound() async throws {
        try await withHTTPLab { lab in
            let id = try #require(try await lab.post("/v1/jobs", #"{"request":{}}"#).json?["id"]?.string)
            let foreign = try await lab.post("/v1/jobs/\(id)/interrupt", "{}", key: "key-b")
            #expect(foreign.json == ["id": .string(id), "state": "unknown", "status": "FAILED"])
            let first = try await lab.post("/v1/jobs/\(id)/interrupt", #"{"reason":"USER_STOP"}"#)
            #expect(first.status == 200 && first.json == ["id": .string(id), "state": "queued", "status": "SUCCESS"])
            let second = try await lab.post("/v1/jobs/\(id)/interrupt", "")
            #expect(second.json == ["id": .string(id), "state": "interrupted", "status": "FAILED"])
            let events = try await lab.get("/v1/jobs/\(id)/events")
            #expect(events.body.contains("id: 1-0\nevent: interrupted\ndata: {"))
        }
    }

    @Test func idempotencyKeys() async throws {
        try await withHTTPLab { lab in
            let body = #"{"request":{"model":"m"}}"#
            let first = try await lab.post("/v1/jobs", body, headers: ["idempotency-key": "k"])
            let again = try await lab.post("/v1/jobs", body, headers: ["idempotency-key": "k"])
            #expect(first.status == 202 && again.status == 202 && first.json == again.json)
            let conflict = try await lab.post("/v1/jobs", #"{"request":{"model":"n"}}"#, headers: ["idempotency-key": "k"])
            #expect(conflict.status == 409 && conflict.json?["error"]?["code"] == "idempotency_conflict")
            let other = try await lab.post("/v1/jobs", body, key: "key-b", headers: ["idempotency-key": "k"])
            #expect(other.status == 202 && other.json != first.json)
        }
    }

    @Test func aFullQueueAnswers429() async throws {
        try await withHTTPLab(queueMaximum: 1) { lab in
            #expect(try await lab.post("/v1/jobs", #"{"request":{}}"#).status == 202)
            let refused = try await lab.post("/v1/jobs", #"{"request":{}}"#)
            #expect(refused.status == 429 && refused.headers["retry-after"] == "1")
        }
    }

    @Test(.redis) func aSubmissionInDoubtNeverRuns() async throws {
        try await withHTTPLab { lab in
            PrivateRedis.current.freeze()
            let answer = try await HTTPCall.send(
                .POST, lab.port, "/v1/jobs", headers: ["authorization": "Bearer key-a"], body: #"{"request":{}}"#, deadline: .seconds(30))
            #expect(answer.status == 503 && answer.headers["retry-after"] == "1")
            PrivateRedis.current.thaw()
            let queue = lab.queue.keys.queue(.standard, partition: 0)
            let pattern = "{\(lab.namespace).0}:*"
            try await until("the interrupt, and no job that waits") {
                let keys = try await PrivateRedis.current.command("KEYS", pattern).array?.compactMap(\.string) ?? []
                let waiting = try await PrivateRedis.current.command("XLEN", queue).integer ?? 0
                return waiting == 0 && keys.contains { $0.contains("}:interrupt:") }
            }
        }
    }

    @Test func eventsGoOnAfterTheLastID() async throws {
        try await withHTTPLab { lab in
            let id = try #require(try await lab.post("/v1/jobs", #"{"request":{}}"#).json?["id"]?.string)
            let live = try await RawHTTPConnection(lab.port)
            try await live.request("GET", "/v1/jobs/\(id)/events")
            try await live.wait(for: "text/event-stream")
            let worker = try await lab.claim()
            try await worker.write(.text("one"))
            try await live.wait(for: "id: 1-1\nevent: text\ndata: {\"id\":\"1-1\",\"type\":\"text\",\"text\":\"one\"}\n\n")
            let late = try await RawHTTPConnection(lab.port)
            try await late.request("GET", "/v1/jobs/\(id)/events", headers: ["Last-Event-ID: 1-0"])
            try await late.wait(for: "id: 1-1\n")
            try await worker.write(.text("two"))
            try await worker.end(.finished(.stop, usage))
            for connection in [live, late] { try await connection.wait(for: "0\r\n\r\n") }
            for connection in [live, late] { try await connection.close() }
            let (all, rest) = (live.received.value, late.received.value)
            #expect(all.contains("event: started") && !rest.contains("event: started"))
            for number in 1...3 {
                #expect(all.components("id: 1-\(number)\n") == 1 && rest.components("id: 1-\(number)\n") == 1, "\(number)")
            }
            let replayed = try await lab.get("/v1/jobs/\(id)/events", headers: ["last-event-id": "1-1"])
            #expect(
                !replayed.body.contains("id: 1-1\n") && replayed.body.contains("id: 1-2\n") && replayed.body.contains("event: finished"))
            #expect(try await lab.get("/v1/jobs/\(id)/events", headers: ["last-event-id": "1-3"]).status == 204)
            #expect(try await lab.get("/v1/jobs/\(id)/events", headers: ["last-event-id": "x"]).status == 400)
        }
    }
}

@Suite(.redis, .timeLimit(.minutes(2))) struct HTTPChatCompletionTests {
    @Test func aWholeCompletion() async throws {
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

    @Test func aStreamedCompletion() async throws {
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
            // The connection lives on.
            try await connection.request("GET", "/v1/models")
            try await connection.wait(for: #""object":"list""#)
            try await connection.close()
            #expect(try await lab.queue.record(worker.job.id)?.state == .finished)
        }
    }

    @Test(arguments: [false, true]) func aFailureBeforeOutputIsAStatus(streams: Bool) async throws {
        try await withHTTPLab { lab in
            async let answer = lab.post("/v1/chat/completions", streams ? streamed : chat)
            let worker = try await lab.claim()
            try await worker.end(.failed(Failure(.rateLimited, "slow down", upstreamStatus: 429), .none))
            let failed = try await answer
            #expect(failed.status == 429 && failed.headers["retry-after"] == "1")
            #expect(failed.headers["x-sluice-job"] == worker.job.id.rawValue)
            #expect(failed.json == ["error": ["message": "slow down", "type": "rate_limit_error", "code": "rate_limited"]])
        }
    }

    @Test func aFailureAfterOutputIsAnErrorChunk() async throws {
        try await withHTTPLab { lab in
            async let answer = lab.post("/v1/chat/completions", streamed)
            let worker = try await lab.claim()
            try await worker.write(.text("he"))
            try await worker.end(.failed(Failure(.upstreamDisconnected, "broke"), usage))
            let stream = try await answer
            #expect(stream.status == 200 && stream.body.contains(#""code":"upstream_disconnected""#) && !stream.body.contains("[DONE]"))
        }
    }

    /// When the client closes its connection.
    enum Moment: String, CaseIterable { case queued, claimed, streaming }

    @Test(arguments: Moment.allCases, [false, true])
    func aClientThatLeavesInterruptsItsJob(moment: Moment, streams: Bool) async throws {
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

    @Test func aClientThatReadsNothingIsCut() async throws {
        try await withHTTPLab(settings: { $0.outgoingMaximum = 100_000 }) { lab in
            let connection = try await RawHTTPConnection(lab.port, autoRead: false)
            try await connection.request("POST", "/v1/chat/completions", body: streamed)
            let worker = try await lab.claim()
            let observer = try await PrivateRedis.current.connect()
            let cancel = try await observer.subscribe(lab.queue.keys.cancel(partition: 0))
            let piece = String(repeating: "x", count: 50_000)
            let writing = Task {
                // More than the sockets' buffers hold; ends with the interrupt.
                while !Task.isCancelled { try await worker.write(.text(piece)) }
            }
            #expect(try await first(of: cancel).contains("CLIENT_GONE"))
            writing.cancel()
            _ = await writing.result
            await observer.close()
            try await connection.close()
        }
    }

    /// The first message; ends the test when none comes in time.
    private func first(of messages: AsyncStream<RawMessage>) async throws -> String {
        try await withThrowingTaskGroup(of: String.self) { group in
            group.addTask {
                for await message in messages { return message.text }
                throw NothingCame(description: "the subscription ended")
            }
            group.addTask {
                try await Task.sleep(for: .seconds(15))
                throw NothingCame(description: "no message on the cancel channel within 15 s")
            }
            defer { group.cancelAll() }
            return try await group.next() ?? ""
        }
    }
}

private struct NothingCame: Error {
    let description: String
}

extension String {
    fileprivate func components(_ part: String) -> Int { ranges(of: part).count }

    fileprivate func components(from start: String, to end: String) -> String? {
        guard let from = range(of: start)?.upperBound, let to = self[from...].range(of: end)?.lowerBound else { return nil }
        return String(self[from..<to])
    }
}
