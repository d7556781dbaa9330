import Contract
import JSONCodec
import NIOCore
import NIOWebSocket
import RedisClient
import TestSupport
import Testing

@testable import Gateway
@testable import JobQueue

private let usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)

private func ended(_ request: ClientRequest, on client: WebSocketClient) async throws {
    _ = try await client.state.wait({ "the end of \(request.id), \($0)" }) { $0.requests[request.id]?.end }
}

/// Gateways as clients observe them, with a real Redis. The test acts as the worker.
@Suite(.redis, .timeLimit(.minutes(10))) struct WebSocketJourneyTests {
    @Test func `an answer is relayed and added to the history`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            let client = try await lab.client(gateway)
            let session = client.state.value.session
            let first = try await client.request("one", model: "m")
            let job = try await lab.claim()
            #expect(job.job.owner == "tenant-a" && job.job.session == session && job.job.priority == .interactive && job.job.speech == nil)
            try await job.write(.upstream(name: "u", model: "m"), .text("hel"), .text("lo"))
            try await job.end(.finished(.stop, usage))
            try await ended(first, on: client)
            try await client.request("two", model: "m")
            let second = try await lab.claim()
            #expect(
                second.job.request["messages"] == [
                    ["role": "user", "content": "one"], ["role": "assistant", "content": "hello"], ["role": "user", "content": "two"],
                ])
            try await second.end(.failed(Failure(.rateLimited, "slow down"), usage))
            let error = try await client.expect("ERROR")
            #expect(error.payload["error_code"] == "RATE_LIMITED" && error.payload["error_detail"] == "rate_limited")
            #expect(client.problems.isEmpty, "\(client.problems)")
            await client.close()
        }
    }

    @Test func `invalid messages are answered with errors`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            let client = try await WebSocketClient.connect(port: gateway.port)
            func error(_ code: String) async throws {
                let frame = try await client.expect("ERROR")
                #expect(frame.payload["error_code"] == .string(code), "\(frame)")
            }
            try await client.send("REQUEST", ["request_id": "r"])
            try await error("SESSION_INVALID")
            try await client.send(text: "rubbish")
            try await error("MALFORMED_PAYLOAD")
            try await client.send(
                "REGISTER", ["auth": ["type": "API_KEY", "api_key": "tenant-a-test-key"], "resume_session_id": "p0-nobody"])
            try await error("SESSION_INVALID")
            try await client.register(key: "tenant-a-test-key")
            for (type, payload, code): (String, JSON, String) in [
                ("REGISTER", [:], "MALFORMED_PAYLOAD"), ("NOTHING", [:], "MALFORMED_PAYLOAD"), ("REQUEST", [:], "MALFORMED_PAYLOAD"),
                ("REQUEST", ["request_id": "v", "data_type": "VOICE"], "UNSUPPORTED_DATA_TYPE"),
                ("RESUME", ["request_id": "nobody"], "SESSION_INVALID"), ("INTERRUPT", ["reason": "no good"], "MALFORMED_PAYLOAD"),
            ] {
                try await client.send(type, payload)
                try await error(code)
            }
            try await client.send(text: WebSocketClient.envelope("SESSION_QUERY", [:], session: "p0-other"))
            try await error("SESSION_INVALID")
            try await client.send("SESSION_QUERY", ["query_fields": ["platform"]])
            #expect(try await client.expect("SESSION_INFO").payload["session_data"] == ["platform": "WEB"])
            try await client.send(.binary, ByteBuffer(string: "x"))
            #expect(try await client.closed() == 1003)
        }
    }

    @Test func `close codes`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { settings in
                settings.messageMaximum = 1_000
                settings.registerTimeout = .seconds(12)
                settings.messagesPerSecond = 20
                settings.socketsPerAddress = 1
            }
            func socket() async throws -> WebSocketClient {
                try await until("room for one more") { try? await WebSocketClient.connect(port: gateway.port) }
            }
            let silent = try await socket()
            #expect(try await silent.closed() == 4408)
            let rejected = try await socket()
            try await rejected.send("REGISTER", ["auth": ["type": "API_KEY", "api_key": "wrong"], "platform": "WEB"])
            #expect(try await rejected.expect("ERROR").payload["error_code"] == "AUTH_FAILED")
            #expect(try await rejected.closed() == 4401)
            let large = try await socket()
            try await large.send(text: String(repeating: " ", count: 1_001))
            #expect(try await large.closed() == 1009)
            let invalid = try await socket()
            try await invalid.send(.text, ByteBuffer(bytes: [0xFF]))
            #expect(try await invalid.closed() == 1007)
            let flood = try await socket()
            try await flood.register(key: "tenant-a-test-key")
            // Even a slow machine sends more than 20 messages per second.
            for _ in 0..<2_000 where flood.isOpen { try? await flood.send(.ping, ByteBuffer()) }
            #expect(try await flood.closed() == 4429)
            let kept = try await socket()
            await #expect(throws: (any Error).self, "the address has its one socket") {
                try await WebSocketClient.connect(port: gateway.port)
            }
            await kept.close()
            await #expect(throws: (any Error).self) {
                try await WebSocketClient.connect(port: gateway.port, headers: ["origin": "http://elsewhere"])
            }
            #expect(try await HTTPCall.get(gateway.port, "/ws/agent/stream").status == 426)
        }
    }

    @Test func `interrupts before and after the claim`() async throws {
        try await withWebSocketLab { lab in
            let client = try await lab.client(try await lab.gateway())
            // The interrupt is sent immediately after the request and waits until Redis has the job.
            let queued = try await client.request("x", model: "m")
            let first = try await client.interrupt(.string(queued.id))
            #expect(first["status"] == "SUCCESS" && first["results"] == [["request_id": .string(queued.id), "state": "queued"]])
            try await ended(queued, on: client)
            let again = try await client.interrupt(.array([.string(queued.id), "nobody"]))
            #expect(again["status"] == "FAILED" && again["interrupted_request_ids"] == [])
            #expect(
                again["results"] == [
                    ["request_id": .string(queued.id), "state": "interrupted"], ["request_id": "nobody", "state": "unknown"],
                ])
            let taken = try await client.request("y", model: "m")
            let job = try await lab.claim()
            let second = try await client.interrupt(nil)
            #expect(second["status"] == "SUCCESS" && second["results"] == [["request_id": .string(taken.id), "state": "running"]])
            try await job.end(.interrupted(Interruption(reason: "USER_STOP", phase: .claimed, usage: .none)))
            try await ended(taken, on: client)
            #expect(client.problems.isEmpty, "\(client.problems)")
            await client.close()
        }
    }

    @Test func `limits of requests`() async throws {
        try await withWebSocketLab { lab in
            let client = try await lab.client(try await lab.gateway { $0.requestsPerSocket = 2 })
            try await client.request("x", model: "m", id: "a")
            try await client.request("x", model: "m", id: "a")
            #expect(try await client.expect("ERROR").payload["error_code"] == "DUPLICATE_REQUEST")
            try await client.request("x", model: "m", id: "b")
            try await client.request("x", model: "m", id: "c")
            #expect(try await client.expect("ERROR").payload["error_code"] == "RATE_LIMITED")
            let others = try await lab.client(try await lab.gateway("g2"))
            for number in 0..<3 { try await others.request("x", model: "m", id: "o\(number)") }
            // Requests of one socket are submitted concurrently, so any of them may take the last free slot.
            try await until("five to wait") {
                try await lab.queue.redis.send("XLEN", .string(lab.queue.keys.queue(.interactive, partition: 0))).integer == 5
            }
            try await others.request("x", model: "m", id: "full")
            let full = try await others.expect("ERROR")
            #expect(
                full.payload["error_code"] == "SERVER_BUSY" && full.payload["retryable"] == true && full.payload["request_id"] == "full")
            await client.close()
            await others.close()
        }
    }

    @Test func `a client resumes on another gateway`() async throws {
        try await withWebSocketLab { lab in
            let (one, two) = (try await lab.gateway("g1"), try await lab.gateway("g2"))
            let client = try await lab.client(one)
            let session = client.state.value.session
            let request = try await client.request("x", model: "m")
            let job = try await lab.claim()
            try await job.write(.upstream(name: "u", model: "m"), .text("he"))
            _ = try await client.state.wait({ "text, \($0)" }) { $0.requests[request.id]?.lastEvent }
            await client.abort()
            try await job.write(.text("ll"))
            // Another tenant receives the response for an unknown session.
            let thief = try await WebSocketClient.connect(port: two.port)
            try await thief.send(
                "REGISTER",
                ["auth": ["type": "API_KEY", "api_key": "tenant-b-test-key"], "platform": "WEB", "resume_session_id": .string(session)])
            #expect(try await thief.expect("ERROR").payload["error_code"] == "SESSION_INVALID")
            let back = try await lab.client(two, [("resume_session_id", .string(session))])
            #expect(back.state.value.session == session)
            let resumed = try await back.resume(request)
            try await job.write(.text("o"))
            try await job.end(.finished(.stop, usage))
            try await ended(resumed, on: back)
            try await back.request("next", model: "m")
            let next = try await lab.claim()
            #expect(
                next.job.request["messages"]?[1]?["content"] == "hello",
                "the answer is complete, regardless of which gateway relayed its parts")
            // An ended request can be replayed from its log.
            try await next.end(.finished(.stop, usage))
            #expect(back.problems.isEmpty, "\(back.problems)")
            await back.close()
            await thief.close()
        }
    }

    @Test func `requests of a client that does not return are interrupted`() async throws {
        try await withWebSocketLab { lab in
            let client = try await lab.client(try await lab.gateway { $0.grace = .milliseconds(300) })
            try await client.request("x", model: "m")
            let job = try await lab.claim()
            await client.abort()
            let interruptKey = try await until("the interrupt key") {
                try await lab.queue.redis.send("GET", .string(lab.queue.keys.interrupt(job.job.id))).string
            }
            #expect(Interrupt(parsing: interruptKey.utf8)?.reason == InterruptReason.clientGone)
        }
    }

    @Test func `sessions of a crashed gateway are cleaned up`() async throws {
        try await withWebSocketLab { lab in
            let dead = try await lab.gateway("dead") {
                $0.lease = .milliseconds(600)
                // So long that only the other gateway can end the session, however slowly this one stops.
                $0.grace = .seconds(120)
            }
            let client = try await lab.client(dead)
            try await client.request("x", model: "m")
            let job = try await lab.claim()
            let alive = try await lab.gateway("alive") {
                $0.lease = .milliseconds(600)
                $0.grace = .milliseconds(300)
            }
            // Stopped without a drain, as by SIGKILL: no close frames are sent.
            dead.task.cancel()
            _ = await dead.task.result
            let interruptKey = try await until("the interrupt key") {
                try await lab.queue.redis.send("GET", .string(lab.queue.keys.interrupt(job.job.id))).string
            }
            #expect(Interrupt(parsing: interruptKey.utf8)?.reason == InterruptReason.clientGone)
            let holder = try await lab.queue.redis.send("HGET", .string(lab.queue.keys.session(client.state.value.session)), "gateway")
                .string
            #expect(holder == alive.name)
        }
    }

    @Test func drain() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.drainTimeout = .seconds(30) }
            let (idle, busy) = (try await lab.client(gateway), try await lab.client(gateway))
            let request = try await busy.request("x", model: "m")
            let job = try await lab.claim()
            await gateway.drain()
            try await idle.expect("SHUTDOWN")
            #expect(try await idle.closed() == 1001)
            #expect(try await HTTPCall.get(gateway.port, "/readyz").status == 503)
            await #expect(throws: (any Error).self) { try await WebSocketClient.connect(port: gateway.port) }
            try await job.end(.finished(.stop, usage))
            try await busy.expect("SHUTDOWN")
            #expect(try await busy.closed() == 1001)
            #expect(busy.state.value.requests[request.id]?.end != nil, "the running request was relayed to its end")
            try await gateway.task.value
        }
    }

    @Test func `a request supersedes another in one step`() async throws {
        try await withWebSocketLab { lab in
            let client = try await lab.client(try await lab.gateway())
            let old = try await client.request("old", model: "m")
            try await until("the old one to be queued") {
                try await lab.queue.redis.send("XLEN", .string(lab.queue.keys.queue(.interactive, partition: 0))).integer == 1
            }
            try await client.request("new", model: "m", fields: [("supersede", true)])
            try await ended(old, on: client)
            let job = try await lab.claim()
            #expect(job.job.request["messages"]?.array?.last?["content"] == "new")
            await client.close()
        }
    }

    @Test func `a warning precedes the expiry of a session`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.sessionTimeout = .seconds(8) }
            let client = try await lab.client(gateway)
            try await client.send("HEALTH_CHECK", [:])
            let health = try await client.expect("HEALTH_CHECK_ACK").payload["health_status"]
            #expect(health?["status"] == "HEALTHY" && health?["conn_count"] == 1 && health?["cpu_usage"]?.double != nil)
            try await client.expect("SESSION_WARN")
            #expect(try await client.closed() == 4401, "it expired")
        }
    }

    @Test func `a silent socket is closed`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.heartbeat = .milliseconds(100) }
            let silent = try await WebSocketClient.connect(port: gateway.port)
            silent.state.update { $0.repliesToHeartbeats = false }
            try await silent.register(key: "tenant-a-test-key")
            #expect(try await silent.closed() == 4432)
        }
    }
}
