import Contract
import JSONCodec
import NIOCore
import NIOWebSocket
import TestSupport
import Testing

@testable import Gateway
@testable import JobQueue

private let usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)

/// The cost of messages in Redis commands and in memory, and the limits on it. Serialized: the tests stop their Redis.
@Suite(.serialized, .redis, .timeLimit(.minutes(10))) struct CostTests {
    private static func text(_ count: Int) -> JSON { .string(String(repeating: "x", count: count)) }

    /// Script calls in Redis so far, of all clients.
    static func scriptCalls() async throws -> Int {
        let stats = try await PrivateRedis.current.command("INFO", "commandstats").string ?? ""
        let prefix = "cmdstat_evalsha:calls="
        let line = stats.split(separator: "\r\n").first { $0.hasPrefix(prefix) }
        return line.flatMap { $0.dropFirst(prefix.count).split(separator: ",").first }.flatMap { Int($0) } ?? 0
    }

    /// Bytes that Redis has received so far.
    private static func bytesReceived() async throws -> Int {
        let stats = try await PrivateRedis.current.command("INFO", "stats").string ?? ""
        let line = stats.split(separator: "\r\n").first { $0.hasPrefix("total_net_input_bytes:") }
        return line.flatMap { Int($0.split(separator: ":")[1]) } ?? 0
    }

    /// Waits until the gateway has processed everything sent before.
    static func settle(_ client: WebSocketClient) async throws {
        try await client.send("HEALTH_CHECK", [:])
        try await client.expect("HEALTH_CHECK_ACK")
    }

    /// Sends a request without text that only updates the session's settings.
    private static func update(_ client: WebSocketClient, _ update: JSON) async throws {
        try await client.send(
            "REQUEST", ["request_id": "u", "data_type": "TEXT", "content": ["text": ""], "update_session": update])
    }

    @Test func `updates during a slow Redis are merged into one write, and unchanged settings are not written`() async throws {
        try await withWebSocketLab { lab in
            let redis = PrivateRedis.current
            let gateway = try await lab.gateway { $0.bytesPerSecond = 0 }
            let client = try await lab.client(gateway, [("system_prompt", Self.text(50_000))])
            let session = client.state.value.session
            try await Self.settle(client)
            let (calls, bytes) = (try await Self.scriptCalls(), try await Self.bytesReceived())
            redis.freeze()
            defer { redis.thaw() }
            for number in 1...1_000 { try await Self.update(client, ["sceneContext": .string("scene \(number)")]) }
            try await Self.settle(client)
            redis.thaw()
            let key = lab.queue.keys.session(session)
            try await until("the last scene in Redis") {
                try await redis.command("HGET", key, "settings").string?.contains("scene 1000\"") == true
            }
            let written = try await Self.scriptCalls() - calls
            #expect(written <= 3, "\(written) writes for 1,000 updates: one in flight, one with all the others")
            #expect(try await Self.bytesReceived() - bytes < 1 << 20)

            let before = try await Self.scriptCalls()
            for _ in 0..<1_000 { try await Self.update(client, ["sceneContext": "scene 1000"]) }
            for _ in 0..<1_000 { try await Self.update(client, [:]) }
            try await Self.settle(client)
            #expect(try await Self.scriptCalls() - before <= 1, "at most the time of the last request is written")
            await client.close()
        }
    }

    @Test func `changes deferred while Redis is unreachable reach the next gateway`() async throws {
        try await withWebSocketLab { lab in
            let (one, two) = (try await lab.gateway("g1"), try await lab.gateway("g2"))
            let client = try await lab.client(one)
            let redis = PrivateRedis.current
            redis.freeze()
            defer { redis.thaw() }
            for number in 1...5 { try await Self.update(client, ["systemPrompt": .string("role \(number)")]) }
            try await Self.settle(client)
            redis.thaw()
            let request = try await client.request("one", model: "m")
            let job = try await lab.claim()
            #expect(job.job.request["messages"]?[0]?["content"] == "role 5")
            try await job.write(.upstream(name: "u", model: "m"), .text("first"))
            try await job.end(.finished(.stop, usage))
            try await request.ended()
            let session = client.state.value.session
            await client.abort()
            let key = lab.queue.keys.session(session)
            try await until("the turn in Redis") { try await redis.command("HGET", key, "history").string?.contains("first") == true }
            #expect(try await redis.command("HGET", key, "r:" + request.id) == .null)
            let back = try await lab.client(two, [("resume_session_id", .string(session))])
            try await back.request("two", model: "m")
            let next = try await lab.claim()
            #expect(next.job.request["messages"]?.array?.compactMap { $0["content"]?.string } == ["role 5", "one", "first", "two"])
            try await next.end(.finished(.stop, usage))
            await back.close()
        }
    }

    @Test func `a tenant's bytes in memory are limited`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.heldBytesPerTenant = 200_000 }
            let (client, other) = (try await lab.client(gateway), try await lab.client(gateway, key: "tenant-b-test-key"))
            let redis = PrivateRedis.current
            redis.freeze()
            defer { redis.thaw() }
            let text = String(repeating: "x", count: 40_000)
            let first = try await client.request(text, model: "m", id: "first")
            try await client.request(text, model: "m", id: "second")
            let error = try await client.expect("ERROR").payload
            #expect(error["error_code"] == "RATE_LIMITED" && error["request_id"] == "second" && error["retryable"] == true, "\(error.text)")
            let theirs = try await other.request(text, model: "m", id: "theirs")
            try await Self.settle(other)
            redis.thaw()
            for _ in 0..<2 { try await lab.claim().end(.finished(.stop, usage)) }
            try await first.ended()
            try await theirs.ended()
            // The bytes are released after the requests.
            let again = try await client.request(text, model: "m", id: "again")
            try await lab.claim().end(.finished(.stop, usage))
            try await again.ended()
            await client.close()
            await other.close()
        }
    }

    @Test func `interrupts that come while one is on its way share its call to Redis`() async throws {
        try await withWebSocketLab { lab in
            let redis = PrivateRedis.current
            let gateway = try await lab.gateway { $0.bytesPerSecond = 0 }
            let client = try await lab.client(gateway)
            var jobs: [PlayedJob] = []
            for number in 0..<3 {
                try await client.request("x", model: "m", id: "r\(number)")
                jobs.append(try await lab.claim())
            }
            let before = try await Self.scriptCalls()
            redis.freeze()
            defer { redis.thaw() }
            for _ in 0..<500 { try await client.send("INTERRUPT", [:]) }
            try await client.send("INTERRUPT", ["interrupt_request_id": ["r1", "unknown"]])
            try await Self.settle(client)
            redis.thaw()
            // The one that names r1 needs the answers of no other request.
            var answers: [[String]: Int] = [:]
            for _ in 0...500 {
                let answer = try await client.expect("INTERRUPT_ACK").payload
                answers[answer["interrupted_request_ids"]?.array?.compactMap(\.string) ?? [], default: 0] += 1
            }
            #expect(answers == [["r0", "r1", "r2"]: 500, ["r1"]: 1])
            let calls = try await Self.scriptCalls() - before
            #expect(calls <= 6, "\(calls) scripts for 501 INTERRUPTs of 3 requests")
            for job in jobs { try await job.end(.finished(.stop, usage)) }
            await client.close()
        }
    }

    @Test func `interrupts that wait for Redis are bounded, and have room when requests have none`() async throws {
        try await withWebSocketLab { lab in
            let redis = PrivateRedis.current
            let gateway = try await lab.gateway { $0.heldBytesPerTenant = 100_000 }
            let client = try await lab.client(gateway)
            let text = String(repeating: "x", count: 40_000)
            try await client.request(text, model: "m", id: "first")
            let job = try await lab.claim()
            try await client.request(text, model: "m", id: "second")
            #expect(try await client.expect("ERROR").payload["request_id"] == "second")
            redis.freeze()
            defer { redis.thaw() }
            for _ in 0..<200 { try await client.send("INTERRUPT", [:]) }
            try await Self.settle(client)
            let refused = client.state.value.waiting.filter { $0.type == "ERROR" }
            #expect(refused.allSatisfy { $0.payload["error_code"] == "RATE_LIMITED" && $0.payload["retryable"] == true })
            // 512 bytes each in what the running request leaves of 125,000 bytes; requests have only 100,000.
            #expect((30...50).contains(refused.count), "\(refused.count) refused")
            redis.thaw()
            for _ in refused.count..<200 { #expect(try await client.expect("INTERRUPT_ACK").payload["status"] == "SUCCESS") }
            #expect(try await client.interrupt(nil)["status"] == "SUCCESS", "what was held is free again")
            try await job.end(.finished(.stop, usage))
            await client.close()
        }
    }

    @Test func `incomplete messages are limited over all sockets of a tenant`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.heldBytesPerTenant = 200_000 }
            var clients: [WebSocketClient] = []
            for _ in 0..<5 { clients.append(try await lab.client(gateway)) }
            let small = try await lab.client(gateway)
            for client in clients { try await client.send(.text, ByteBuffer(repeating: 0x20, count: 60_000), final: false) }
            try await until("a socket above the limit to be closed") { clients.contains { !$0.isOpen } }
            for client in clients where !client.isOpen { #expect(client.state.value.closeCode == 1013) }
            #expect(clients.count { $0.isOpen } >= 2)
            try await Self.settle(small)
            for client in clients + [small] { await client.close() }
        }
    }

    @Test func `a tenant above its byte rate is throttled without loss`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.bytesPerSecond = 400_000 }
            let client = try await lab.client(gateway)
            // About 1,000 bytes each including the frame's overhead, which exceeds the burst allowance.
            for number in 0..<300 { try await client.send("RESUME", ["request_id": .string("r\(number)")]) }
            for number in 0..<300 { #expect(try await client.expect("ERROR").payload["request_id"] == .string("r\(number)")) }
            #expect(client.isOpen)
            await client.close()
        }
    }

    @Test func `before REGISTER messages are limited in size and number`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            func ends(_ code: Int, errors: Int = 0, _ body: (WebSocketClient) async throws -> Void) async throws {
                let client = try await WebSocketClient.connect(port: gateway.port)
                try await body(client)
                #expect(try await client.closed() == code)
                #expect(client.state.value.waiting.count { $0.type == "ERROR" } == errors)
            }
            try await ends(1009) { try await $0.send(text: String(repeating: "x", count: 70_000)) }
            try await ends(1009) { try await $0.send(text: String(repeating: "x", count: 900_000)) }
            try await ends(4429, errors: 8) { client in for _ in 0..<9 { try await client.send(text: "x") } }
            try await ends(4429) { client in for _ in 0..<9 { try await client.send(.ping, ByteBuffer()) } }
            // Fragments of one byte and empty fragments.
            for size in [1, 0] {
                try await ends(1009) { client in
                    try await client.send(.text, ByteBuffer(string: " "), final: false)
                    for _ in 0..<1_100 where client.isOpen {
                        // The gateway may close the socket during the loop.
                        try? await client.send(.continuation, ByteBuffer(repeating: 0x20, count: size), final: false)
                    }
                }
            }
            let client = try await lab.client(gateway, [("system_prompt", Self.text(60_000))])
            for _ in 0..<20 { try await Self.settle(client) }
            await client.close()
        }
    }

    @Test func `fragments of a registered socket count as messages`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.messagesPerSecond = 50 }
            let client = try await lab.client(gateway)
            try await client.send(.text, ByteBuffer(string: " "), final: false)
            for _ in 0..<5_000 where client.isOpen { try? await client.send(.continuation, ByteBuffer(string: " "), final: false) }
            #expect(try await client.closed() == 4429)
        }
    }

    @Test func `the sockets of a tenant are limited`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.socketsPerTenant = 2 }
            let (one, two) = (try await lab.client(gateway), try await lab.client(gateway))
            let third = try await WebSocketClient.connect(port: gateway.port)
            try await third.send("REGISTER", ["auth": ["type": "API_KEY", "api_key": "tenant-a-test-key"]])
            #expect(try await third.expect("ERROR").payload["error_code"] == "RATE_LIMITED")
            #expect(try await third.closed() == 1013)
            let other = try await lab.client(gateway, key: "tenant-b-test-key")
            // A refused session gives its place back only with its socket, and counts once.
            await one.close()
            let fourth = try await until("a free socket") { try? await lab.client(gateway) }
            for client in [two, other, fourth] { await client.close() }
        }
    }
}
