import Contract
import Foundation
import JSONCodec
import NIOCore
import NIOHTTP1
import RedisClient
import TestSupport
import Testing

@testable import Gateway
@testable import JobQueue

private let chat = #"{"model":"asked","messages":[{"role":"user","content":"hi"}]}"#
private let usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)

@Suite(.redis, .timeLimit(.minutes(10))) struct HTTPRouterTests {
    @Test func `health, readiness and metrics need no key`() async throws {
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

    @Test func `usage is shown to the tenant itself, and to operators whole`() async throws {
        try await withHTTPLab(settings: { $0.authentication.adminKey = "an-admin-key-of-the-lab" }) { lab in
            for key in ["tenant-a-test-key", "tenant-b-test-key"] {
                #expect(try await lab.post("/v1/jobs", #"{"request":{"model":"m"}}"#, key: key).status == 202)
                try await lab.claim().end(.finished(.stop, usage))
            }
            let own = try await lab.get("/v1/usage")
            #expect(own.status == 200 && own.json?["data"]?.array?.count == 1)
            let row = try #require(own.json?["data"]?.array?.first)
            #expect(row["tenant"] == "tenant-a" && row["model"] == "m" && row["jobs"] == 1 && row["completion_tokens"] == 2)
            let all = try await lab.get("/v1/usage", key: "an-admin-key-of-the-lab")
            #expect(all.json?["data"]?.array?.compactMap { $0["tenant"]?.string } == ["tenant-a", "tenant-b"])
            #expect(try await lab.get("/v1/usage?from=2020-01-01&to=2020-02-01").json?["data"]?.array?.isEmpty == true)
            #expect(try await lab.get("/v1/usage?from=yesterday").status == 400)
            #expect(try await lab.get("/v1/usage?from=2026-02-01&to=2026-01-01").status == 400)
            #expect(try await lab.get("/v1/usage", key: "unknown").status == 401)
        }
    }

    @Test func `a tenant whose tokens of the day are used up is refused with 429`() async throws {
        try await withHTTPLab { lab in
            var limits = TenantLimits()
            limits.dailyTokens = 3
            try await lab.queue.publish(["tenant-a": limits])
            #expect(try await lab.post("/v1/jobs", #"{"request":{"model":"m"}}"#).status == 202)
            try await lab.claim().end(.finished(.stop, usage))
            for path in ["/v1/jobs", "/v1/chat/completions"] {
                let refused = try await lab.post(path, path == "/v1/jobs" ? #"{"request":{"model":"m"}}"# : chat)
                #expect(refused.status == 429 && refused.json?["error"]?["code"] == "quota_exhausted", "\(path)")
                #expect(refused.headers["retry-after"].flatMap { Int($0) } ?? 0 > 0)
            }
            #expect(try await lab.post("/v1/jobs", #"{"request":{"model":"m"}}"#, key: "tenant-b-test-key").status == 202)
        }
    }

    @Test func `pages of listed origins may use the API`() async throws {
        try await withHTTPLab(settings: { $0.allowedOrigins = ["https://chat.example"] }) { lab in
            func preflight(_ origin: String) async throws -> HTTPAnswer {
                try await HTTPCall.send(
                    .OPTIONS, lab.port, "/v1/chat/completions",
                    headers: [
                        "origin": origin, "access-control-request-method": "POST",
                        "access-control-request-headers": "authorization, x-stainless-os",
                    ])
            }
            let allowed = try await preflight("https://chat.example")
            #expect(allowed.status == 204 && allowed.headers["access-control-allow-origin"] == "https://chat.example")
            #expect(allowed.headers["access-control-allow-methods"]?.contains("POST") == true)
            #expect(allowed.headers["access-control-allow-headers"] == "authorization, x-stainless-os")
            #expect(try await preflight("https://evil.example").headers["access-control-allow-origin"] == nil)
            // Errors too: a page must be able to read why its request failed.
            for (path, key) in [("/v1/models", "tenant-a-test-key"), ("/v1/models", "wrong"), ("/v1/jobs/p0-x", "tenant-a-test-key")] {
                let answer = try await lab.get(path, key: key, headers: ["origin": "https://chat.example"])
                #expect(answer.headers["access-control-allow-origin"] == "https://chat.example", "\(path)")
            }
            #expect(try await lab.get("/v1/models", headers: ["origin": "https://evil.example"]).headers["vary"] == nil)
        }
    }

    @Test func `a model by its id`() async throws {
        try await withHTTPLab { lab in
            let model = try await lab.get("/v1/models/one")
            #expect(model.status == 200 && model.json?["id"] == "one" && model.json?["object"] == "model")
        }
    }

    @Test func `every error is JSON`() async throws {
        try await withHTTPLab(settings: { $0.bodyMaximum = 1_000 }) { lab in
            let large = #"{"request":{"x":""# + String(repeating: "x", count: 1_000) + #""}}"#
            let table: [(HTTPAnswer, Int, String)] = [
                (try await lab.get("/nothing", key: nil), 404, "not_found"),
                (try await lab.get("/v1/nothing"), 404, "not_found"),
                (try await lab.get("/v1/jobs"), 405, "method_not_allowed"),
                (try await lab.post("/healthz", ""), 405, "method_not_allowed"),
                (try await lab.get("/v1/models", key: nil), 401, "invalid_api_key"),
                (try await lab.get("/v1/models", key: "wrong"), 401, "invalid_api_key"),
                (try await lab.post("/v1/jobs", large), 413, "payload_too_large"),
                (
                    try await lab.post("/v1/jobs", "{}", headers: ["content-encoding": "gzip"]), 415, "unsupported_content_encoding"
                ),
                (try await lab.get("/v1/models/three"), 404, "model_not_found"),
                (try await lab.post("/v1/jobs", #"{"request":{"modalities":["audio"]}}"#), 400, "unsupported_parameter"),
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

    @Test func `a gateway without authentication checks origins`() async throws {
        try await withHTTPLab(settings: { settings in
            settings.authentication = AuthenticationSettings()
            settings.authentication.none = true
        }) { lab in
            let own = "http://127.0.0.1:\(lab.port)"
            #expect(try await lab.get("/v1/models", key: nil).status == 200)
            #expect(try await lab.get("/v1/models", key: nil, headers: ["origin": own]).status == 200)
            let foreign = try await lab.post("/v1/jobs", #"{"request":{}}"#, key: nil, headers: ["origin": "https://evil.example"])
            #expect(foreign.status == 403 && foreign.json?["error"]?["code"] == "origin_refused")
            #expect(try await lab.get("/", key: nil).body.contains(#"data-requires-key="false""#))
        }
    }

    @Test func `the chat page is served with its policy`() async throws {
        try await withHTTPLab { lab in
            let page = try await lab.get("/", key: nil)
            #expect(page.status == 200 && page.headers["content-type"] == "text/html; charset=utf-8")
            #expect(page.body.contains(#"data-requires-key="true""#))
            #expect(page.headers["content-security-policy"] == WebPage.chat(requiresKey: true, recognizes: false).policy)
            #expect(page.headers["x-content-type-options"] == "nosniff" && page.headers["referrer-policy"] == "no-referrer")
        }
    }

    @Test func `a job from submission to record`() async throws {
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
            // Another tenant receives the responses for an unknown job.
            for suffix in ["", "/events"] {
                let foreign = try await lab.get(path + suffix, key: "tenant-b-test-key")
                let unknown = try await lab.get("/v1/jobs/p0-unknown" + suffix)
                #expect(foreign.status == 404 && foreign.body == unknown.body)
            }
        }
    }

    @Test func `a job without an owner is unknown`() async throws {
        try await withHTTPLab { lab in
            let job = Job(id: try #require(JobID("p0-by-hand")), priority: .standard, request: JSONObject())
            #expect(try await lab.queue.submit(job, options: SubmitOptions()) == .accepted)
            #expect(try await lab.get("/v1/jobs/p0-by-hand").status == 404)
            let answer = try await lab.post("/v1/jobs/p0-by-hand/interrupt", "{}")
            #expect(answer.status == 200 && answer.body == #"{"id":"p0-by-hand","state":"unknown","status":"FAILED"}"#)
            #expect(try await lab.queue.record(job.id)?.state == .queued)
        }
    }

    @Test func `an interrupt reports the job's state`() async throws {
        try await withHTTPLab { lab in
            let id = try #require(try await lab.post("/v1/jobs", #"{"request":{}}"#).json?["id"]?.string)
            let foreign = try await lab.post("/v1/jobs/\(id)/interrupt", "{}", key: "tenant-b-test-key")
            #expect(foreign.json == ["id": .string(id), "state": "unknown", "status": "FAILED"])
            let first = try await lab.post("/v1/jobs/\(id)/interrupt", #"{"reason":"USER_STOP"}"#)
            #expect(first.status == 200 && first.json == ["id": .string(id), "state": "queued", "status": "SUCCESS"])
            let second = try await lab.post("/v1/jobs/\(id)/interrupt", "")
            #expect(second.json == ["id": .string(id), "state": "interrupted", "status": "FAILED"])
            let events = try await lab.get("/v1/jobs/\(id)/events")
            #expect(events.body.contains("id: 1-0\nevent: interrupted\ndata: {"))
        }
    }

    @Test func `idempotency keys`() async throws {
        try await withHTTPLab { lab in
            let body = #"{"request":{"model":"m"}}"#
            let first = try await lab.post("/v1/jobs", body, headers: ["idempotency-key": "k"])
            let again = try await lab.post("/v1/jobs", body, headers: ["idempotency-key": "k"])
            #expect(first.status == 202 && again.status == 202 && first.json == again.json)
            let conflict = try await lab.post("/v1/jobs", #"{"request":{"model":"n"}}"#, headers: ["idempotency-key": "k"])
            #expect(conflict.status == 409 && conflict.json?["error"]?["code"] == "idempotency_conflict")
            let other = try await lab.post("/v1/jobs", body, key: "tenant-b-test-key", headers: ["idempotency-key": "k"])
            #expect(other.status == 202 && other.json != first.json)
        }
    }

    @Test func `a full queue gives 429`() async throws {
        try await withHTTPLab(queueMaximum: 1) { lab in
            #expect(try await lab.post("/v1/jobs", #"{"request":{}}"#).status == 202)
            let refused = try await lab.post("/v1/jobs", #"{"request":{}}"#)
            #expect(refused.status == 429 && refused.headers["retry-after"] == "1")
        }
    }

    @Test(.redis) func `a submission with an unknown result never runs`() async throws {
        var redisSettings = RedisSettings.forTests
        redisSettings.commandTimeout = .seconds(3)
        try await withHTTPLab(redis: redisSettings) { lab in
            PrivateRedis.current.freeze()
            let answer = try await HTTPCall.send(
                .POST, lab.port, "/v1/jobs", headers: ["authorization": "Bearer tenant-a-test-key"], body: #"{"request":{}}"#,
                deadline: .seconds(30))
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

    @Test func `events continue after Last-Event-ID`() async throws {
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

extension String {
    fileprivate func components(_ part: String) -> Int { ranges(of: part).count }
}
