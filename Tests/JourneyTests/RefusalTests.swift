import Contract
import JSONCodec
import NIOCore
import NIOWebSocket
import TestSupport
import Testing

extension Journeys {
    /// Every limit of a gateway has an error code and is counted.
    @Suite struct RefusalTests {
        private static let upgrade =
            "GET /ws/agent/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

        /// Expects that the gateway has counted these rejections.
        private func expectCounted(_ labels: [(place: String, code: String)], by gateway: Node) async throws {
            for (place, code) in labels {
                let series = "sluice_refusals_total{code=\"\(code)\",place=\"\(place)\"}"
                try await until("\(gateway.name) to count \(series)") { try await gateway.scrape()[series] ?? 0 >= 1 }
            }
        }

        private func closes(_ code: Int, _ gateway: Node, _ provoke: @Sendable (WebSocketClient) async throws -> Void) async throws {
            let client = try await WebSocketClient.connect(port: gateway.port)
            try await provoke(client)
            #expect(try await client.closed() == code)
        }

        private func answers(_ status: Int, _ code: String, _ gateway: Node, _ request: String) async throws {
            let connection = try await RawHTTPConnection(gateway.port)
            try await connection.send(request)
            try await connection.wait(for: "}}")
            let answer = connection.received.value
            #expect(answer.hasPrefix("HTTP/1.1 \(status) ") && answer.contains("\"code\":\"\(code)\""), "\(answer)")
            #expect(answer.lowercased().contains("\r\ndate: "), "\(answer)")
            try await connection.close()
        }

        @Test func `limits of one client`() async throws {
            try await withLab(simulator: false) { lab in
                let gateway = try await lab.gateway(
                    "g1",
                    [
                        "SLUICE_MAX_MESSAGE": "2KiB", "SLUICE_MAX_BODY": "2KiB", "SLUICE_MAX_HEADER": "2KiB", "SLUICE_MAX_JSON_DEPTH": "8",
                        "SLUICE_HANDSHAKE_TIMEOUT": "8s", "SLUICE_REGISTER_TIMEOUT": "8s", "SLUICE_BODY_TIMEOUT": "8s",
                        "SLUICE_MAX_REQUESTS": "1", "SLUICE_MAX_REQUESTS_PER_TENANT": "2", "SLUICE_MAX_MESSAGES_PER_SECOND": "100",
                        "SLUICE_HEARTBEAT": "5s",
                    ])
                let auth = "Host: x\r\nAuthorization: Bearer \(lab.key)\r\n"
                let deep = String(repeating: "[", count: 9) + String(repeating: "]", count: 9)
                // Cases that wait for a timeout run concurrently.
                async let silent: Void = closes(4408, gateway) { _ in }
                async let unresponsive: Void = closes(4432, gateway) { client in
                    client.state.update { $0.repliesToHeartbeats = false }
                    try await client.register(key: lab.otherKey)
                }
                async let body: Void = answers(408, "body_timeout", gateway, "POST /v1/jobs HTTP/1.1\r\n\(auth)Content-Length: 9\r\n\r\n{")
                let still = try await RawHTTPConnection(gateway.port)

                try await answers(413, "payload_too_large", gateway, "POST /v1/jobs HTTP/1.1\r\n\(auth)Content-Length: 9999\r\n\r\n")
                try await answers(
                    431, "head_too_large", gateway, "GET / HTTP/1.1\r\nX: \(String(repeating: "x", count: 3_000))\r\nHost: x\r\n\r\n")
                try await answers(400, "malformed_request", gateway, "GET / HTTP/1.1\r\n\r\n")
                try await answers(
                    400, "invalid_request", gateway, "POST /v1/jobs HTTP/1.1\r\n\(auth)Content-Length: \(deep.utf8.count)\r\n\r\n\(deep)")
                try await answers(
                    401, "invalid_api_key", gateway, "GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\n\r\n")
                try await answers(403, "origin_refused", gateway, Self.upgrade + "Origin: http://elsewhere\r\n\r\n")
                try await answers(426, "upgrade_required", gateway, "GET /ws/agent/stream HTTP/1.1\r\nHost: x\r\n\r\n")

                try await closes(1009, gateway) { try await $0.send(text: String(repeating: " ", count: 2_049)) }
                try await closes(1007, gateway) { try await $0.send(.text, ByteBuffer(bytes: [0xC3, 0x28])) }
                try await closes(1003, gateway) { try await $0.send(.binary, ByteBuffer(string: "x")) }
                try await closes(1002, gateway) { try await $0.send(.continuation, ByteBuffer(string: "x")) }
                try await closes(4401, gateway) { client in
                    try await client.send("REGISTER", ["auth": ["type": "API_KEY", "api_key": "wrong"], "platform": "WEB"])
                    #expect(try await client.expect("ERROR").payload["error_code"] == "AUTH_FAILED")
                }
                try await closes(4429, gateway) { client in
                    // Even a slow machine sends more than 100 messages per second.
                    for _ in 0..<100_000 where client.isOpen { try? await client.send(.ping, ByteBuffer()) }
                }
                let client = try await lab.client(gateway)
                func refused(_ code: String) async throws {
                    let error = try await client.expect("ERROR").payload
                    #expect(error["error_code"]?.string == code, "\(error.text)")
                }
                try await client.send(text: WebSocketClient.envelope("HEALTH_CHECK", [:]).replacing("{}", with: "{\"x\":\(deep)}"))
                try await refused("MALFORMED_PAYLOAD")
                try await client.request(model: "m")
                try await client.request(model: "m", id: "one too many of this session")
                try await refused("RATE_LIMITED")
                let submit = {
                    try await HTTPCall.post(
                        gateway.port, "/v1/jobs", ["request": ["model": "m"]], headers: ["authorization": "Bearer \(lab.key)"])
                }
                #expect(try await submit().status == 202)
                let over = try await submit()
                #expect(over.status == 429 && over.json?["error"]?["code"] == "rate_limited" && over.headers["retry-after"] != nil)
                let second = try await lab.client(gateway)
                try await second.request(model: "m", id: "one too many of this tenant")
                #expect(try await second.expect("ERROR").payload["error_code"] == "RATE_LIMITED")

                try await silent
                try await unresponsive
                try await body
                try await still.wait(for: "<closed>")
                try await expectCounted(
                    [
                        ("socket", "4408"), ("socket", "4432"), ("socket", "1009"), ("socket", "1007"), ("socket", "1003"),
                        ("socket", "1002"), ("socket", "4401"), ("socket", "4429"), ("message", "AUTH_FAILED"),
                        ("message", "MALFORMED_PAYLOAD"), ("message", "RATE_LIMITED"), ("http", "body_timeout"),
                        ("http", "payload_too_large"), ("http", "head_too_large"), ("http", "malformed_request"),
                        ("http", "invalid_request"),
                        ("http", "invalid_api_key"), ("http", "rate_limited"), ("upgrade", "origin_refused"),
                        ("upgrade", "upgrade_required"), ("upgrade", "handshake_timeout"),
                    ], by: gateway)
            }
        }

        @Test func `limits of all clients together`() async throws {
            try await withLab(simulator: false) { lab in
                let small = try await lab.gateway("small", ["SLUICE_MAX_SOCKETS": "1"])
                let narrow = try await lab.gateway("narrow", ["SLUICE_MAX_SOCKETS_PER_ADDRESS": "1"])
                let slow = try await lab.client(
                    small,
                    fields: [
                        ("function_calling", [["name": "f", "description": .string(String(repeating: "x", count: 60_000))]])
                    ])
                let other = try await lab.client(narrow)
                try await answers(503, "overloaded", small, Self.upgrade + "\r\n")
                try await answers(429, "too_many_sockets", narrow, Self.upgrade + "\r\n")
                // Answers of 60 KB each, which the client does not read.
                try await slow.stopReading()
                for _ in 0..<400 { try await slow.send("SESSION_QUERY", [:]) }
                try await expectCounted([("socket", "4430"), ("upgrade", "overloaded")], by: small)
                #expect(try await small.scrape()["sluice_slow_readers_closed_total"] == 1)
                try await slow.goOnReading()
                // On a slow machine the close frame may have been dropped, which gives 1006.
                #expect([4430, 1006].contains(try await slow.closed()))
                try await expectCounted([("upgrade", "too_many_sockets")], by: narrow)
                await other.close()
            }
        }
    }
}
