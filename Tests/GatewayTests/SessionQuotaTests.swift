import Contract
import JSONCodec
import NIOCore
import TestSupport
import Testing

@testable import Gateway
@testable import JobQueue

private let usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)

/// The quotas of a tenant's sessions in Redis.
@Suite(.redis, .timeLimit(.minutes(10))) struct SessionQuotaTests {
    private static func text(_ count: Int) -> JSON { .string(String(repeating: "x", count: count)) }

    private static func refused(_ gateway: WebSocketLab.Gateway, _ prompt: JSON = "") async throws -> Bool {
        let client = try await WebSocketClient.connect(port: gateway.port)
        try await client.send("REGISTER", ["auth": ["type": "API_KEY", "api_key": "tenant-a-test-key"], "system_prompt": prompt])
        let frame = try await client.state.wait({ _ in "an answer" }) { $0.waiting.first }
        await client.close()
        return frame.type == "ERROR" && frame.payload["error_code"] == "RATE_LIMITED" && frame.payload["retryable"] == true
    }

    private static func quota(_ lab: WebSocketLab) async throws -> [String: String] {
        try await PrivateRedis.current.command("HGETALL", lab.queue.keys.sessionQuota(of: "tenant-a", partition: 0)).fields
    }

    @Test func `the sessions of a tenant are limited over all gateways`() async throws {
        try await withWebSocketLab { lab in
            let (one, two) = (
                try await lab.gateway("g1") { $0.sessionsPerTenant = 2 }, try await lab.gateway("g2") { $0.sessionsPerTenant = 2 }
            )
            let clients = [try await lab.client(one), try await lab.client(two)]
            #expect(try await Self.refused(one))
            #expect(try await Self.refused(two))
            let other = try await lab.client(one, key: "tenant-b-test-key")
            // Resuming a session does not create one.
            let session = clients[0].state.value.session
            let back = try await lab.client(two, [("resume_session_id", .string(session))])
            #expect(try await Self.quota(lab)["sessions"] == "2")
            try await back.send("SHUTDOWN", [:])
            _ = try await back.closed()
            try await until("the session's place") { try await Self.quota(lab)["sessions"] == "1" }
            #expect(try await !Self.refused(one))
            for client in clients + [other] { await client.close() }
        }
    }

    @Test func `the bytes of a tenant's sessions are limited`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.sessionBytesPerTenant = 12_000 }
            let client = try await lab.client(gateway, [("system_prompt", Self.text(5_000))])
            let bytes = try #require(Int(try await Self.quota(lab)["bytes"] ?? ""))
            #expect((5_500..<6_500).contains(bytes))
            #expect(try await Self.refused(gateway, Self.text(6_000)))
            // A request whose field exceeds the quota is rejected; it can be sent again.
            try await client.request(String(repeating: "y", count: 9_000), model: "m", id: "large")
            let error = try await client.expect("ERROR").payload
            #expect(error["error_code"] == "RATE_LIMITED" && error["request_id"] == "large", "\(error.text)")
            // Settings and history above the quota are not stored; the session continues.
            let request = try await client.request("small", model: "m")
            let job = try await lab.claim()
            try await job.write(.upstream(name: "u", model: "m"), .text(String(repeating: "z", count: 9_000)))
            try await job.end(.finished(.stop, usage))
            try await request.ended()
            #expect(try await client.expect("ERROR").payload["error_code"] == "RATE_LIMITED")
            let next = try await client.request("next", model: "m")
            let second = try await lab.claim()
            #expect(second.job.request["messages"]?.array?.count == 4, "the gateway still has the turn in memory")
            try await second.end(.finished(.stop, usage))
            try await next.ended()
            let key = lab.queue.keys.session(client.state.value.session)
            #expect(try await PrivateRedis.current.command("HGET", key, "history") == .null)
            #expect(try await PrivateRedis.current.command("HGET", key, "ended").string?.contains(request.id) == true)
            await client.close()
        }
    }

    @Test func `expired sessions are not counted, and wrong counts are corrected`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { settings in
                settings.sessionsPerTenant = 2
                // Long enough that the sessions live until they are counted on a busy machine.
                settings.sessionTimeout = .seconds(40)
                settings.grace = .zero
                settings.lease = .milliseconds(300)
            }
            let redis = PrivateRedis.current
            let key = lab.queue.keys.sessionQuota(of: "tenant-a", partition: 0)
            for _ in 0..<2 { await (try await lab.client(gateway)).close() }
            #expect(try await Self.refused(gateway))
            // Delete the sessions and set wrong totals.
            for session in try await redis.command("KEYS", lab.queue.keys.session("*")).array ?? [] {
                try await redis.command("DEL", session.string ?? "")
            }
            try await redis.command("HSET", key, "sessions", "1000000", "bytes", "nan")
            try await until("room for a session", every: .milliseconds(500)) { try await !Self.refused(gateway) }
            try await redis.command("DEL", key)
            try await redis.command("SET", key, "rubbish")
            #expect(try await !Self.refused(gateway), "a value of another type is replaced")
            #expect(try await redis.command("PTTL", key).integer ?? 0 > 0)
        }
    }

    @Test func `an unused session expires soon after its client disconnects`() async throws {
        try await withWebSocketLab { lab in
            // The session is kept for a minute, the grace period and three leases.
            let gateway = try await lab.gateway {
                $0.grace = .milliseconds(300)
                $0.lease = .seconds(2)
            }
            let (unused, used) = (try await lab.client(gateway), try await lab.client(gateway))
            func lifetime(_ client: WebSocketClient) async throws -> Int {
                try await PrivateRedis.current.command("PTTL", lab.queue.keys.session(client.state.value.session)).integer ?? 0
            }
            #expect(try await lifetime(unused) > 3_000_000)
            try await used.request("", model: nil, fields: [("update_session", ["sceneContext": "S"])])
            try await until("the update") {
                try await PrivateRedis.current.command("HGET", lab.queue.keys.session(used.state.value.session), "settings").string?
                    .contains("\"S\"") == true
            }
            await used.close()
            await unused.close()
            try await until("the shorter life") { try await lifetime(unused) < 70_000 }
            #expect(try await lifetime(unused) > 0)
            #expect(try await lifetime(used) > 3_000_000)
            let back = try await lab.client(gateway, [("resume_session_id", .string(unused.state.value.session))])
            try await until("the longer life") { try await lifetime(back) > 3_000_000 }
            await back.close()
        }
    }

    @Test(arguments: ["9223372036854775807", "-9223372036854775808", "1e999", "nonsense"])
    func `a corrupt record is handled`(number: String) async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            let client = try await lab.client(gateway)
            try await client.request("", model: nil, fields: [("update_session", ["sceneContext": "S"])])
            let session = client.state.value.session
            await client.close()
            let key = lab.queue.keys.session(session)
            try await PrivateRedis.current.command(
                "HSET", key, "created_ms", number, "last_request_ms", number, "quota", number, "r:x", number)
            let back = try await WebSocketClient.connect(port: gateway.port)
            try await back.send(
                "REGISTER", ["auth": ["type": "API_KEY", "api_key": "tenant-a-test-key"], "resume_session_id": .string(session)])
            let type = try await back.state.wait({ _ in "an answer" }) { $0.waiting.first?.type }
            // The lowest number means an expired session.
            #expect(type == (number.hasPrefix("-") ? "ERROR" : "REGISTER_ACK"))
            await back.close()
            await (try await lab.client(gateway)).close()
        }
    }
}
