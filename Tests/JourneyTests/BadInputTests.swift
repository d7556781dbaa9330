import Contract
import JSONCodec
import NIOCore
import NIOWebSocket
import TestSupport
import Testing

extension Journeys {
    /// Invalid messages from clients.
    @Suite struct BadInputTests {
        /// Messages and the expected errors.
        private static let texts: [(what: String, text: String, code: String)] = [
            ("no JSON", "{", "MALFORMED_PAYLOAD"), ("nothing", "", "MALFORMED_PAYLOAD"), ("an array", "[]", "MALFORMED_PAYLOAD"),
            ("nested too deeply", String(repeating: "[", count: 10_000), "MALFORMED_PAYLOAD"),
            ("another version", WebSocketClient.envelope("HEALTH_CHECK", [:], version: "2.0"), "MALFORMED_PAYLOAD"),
            ("no version", #"{"msg_type":"HEALTH_CHECK","session_id":"","payload":{},"timestamp":1}"#, "MALFORMED_PAYLOAD"),
            (
                "a number as version", #"{"version":1.0,"msg_type":"HEALTH_CHECK","session_id":"","payload":{},"timestamp":1}"#,
                "MALFORMED_PAYLOAD"
            ),
            ("no payload", #"{"version":"1.0","msg_type":"HEALTH_CHECK","session_id":"","timestamp":1}"#, "MALFORMED_PAYLOAD"),
            ("a list as payload", WebSocketClient.envelope("HEALTH_CHECK", []), "MALFORMED_PAYLOAD"),
            (
                "a text as time", #"{"version":"1.0","msg_type":"HEALTH_CHECK","session_id":"","payload":{},"timestamp":"now"}"#,
                "MALFORMED_PAYLOAD"
            ),
            ("no time", #"{"version":"1.0","msg_type":"HEALTH_CHECK","session_id":"","payload":{}}"#, "MALFORMED_PAYLOAD"),
            ("an unknown type", WebSocketClient.envelope("DANCE", [:]), "MALFORMED_PAYLOAD"),
            ("no type", #"{"version":"1.0","session_id":"","payload":{},"timestamp":1}"#, "MALFORMED_PAYLOAD"),
            (
                "a second registration", WebSocketClient.envelope("REGISTER", ["auth": ["type": "API_KEY", "api_key": "x"]]),
                "MALFORMED_PAYLOAD"
            ),
            (
                "a request without id", WebSocketClient.envelope("REQUEST", ["data_type": "TEXT", "content": ["text": "x"]]),
                "MALFORMED_PAYLOAD"
            ),
            (
                "a number as id", WebSocketClient.envelope("REQUEST", ["request_id": 7, "data_type": "TEXT", "content": ["text": "x"]]),
                "MALFORMED_PAYLOAD"
            ),
            (
                "a request without content", WebSocketClient.envelope("REQUEST", ["request_id": "a", "data_type": "TEXT"]),
                "MALFORMED_PAYLOAD"
            ),
            (
                "a list as text", WebSocketClient.envelope("REQUEST", ["request_id": "b", "data_type": "TEXT", "content": ["text": []]]),
                "MALFORMED_PAYLOAD"
            ),
            (
                "voice", WebSocketClient.envelope("REQUEST", ["request_id": "c", "data_type": "VOICE", "content": [:]]),
                "UNSUPPORTED_DATA_TYPE"
            ),
            (
                "a number to interrupt", WebSocketClient.envelope("INTERRUPT", ["interrupt_request_id": 7, "reason": "USER_STOP"]),
                "MALFORMED_PAYLOAD"
            ),
        ]

        @Test func `invalid messages are answered with an error, and the socket stays open`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let client = try await lab.client(lab.gateway())
                let running = try await client.request(model: lab.model("sim-n200-g10"))
                try await running.tokens(1)
                for (what, text, code) in Self.texts {
                    try await client.send(text: text)
                    let error = try await client.expect("ERROR").payload
                    #expect(error["error_code"]?.string == code, "\(what): \(error.text)")
                    #expect(error["error_msg"]?.string?.isEmpty == false && error["retryable"]?.bool != nil, "\(what): \(error.text)")
                }
                #expect(client.isOpen)
                #expect(try await running.ended().end == .finished, "what ran was not disturbed")
                #expect(client.problems.isEmpty)
            }
        }

        @Test func `unknown sessions and requests have the same error`() async throws {
            try await withLab { lab in
                let gateway = try await lab.gateway()
                let client = try await lab.client(gateway)
                try await client.send("RESUME", ["request_id": "never-was"])
                let error = try await client.expect("ERROR").payload
                #expect(error["error_code"] == "SESSION_INVALID" && error["request_id"] == "never-was")
                let second = try await lab.client(gateway, register: false)
                try await second.send(
                    "REGISTER",
                    ["auth": ["type": "API_KEY", "api_key": .string(lab.key)], "platform": "WEB", "resume_session_id": "p0-none"])
                #expect(try await second.expect("ERROR").payload["error_code"] == "SESSION_INVALID")
                #expect(client.isOpen)
            }
        }

        @Test func `a wrong key is rejected and the socket closed with 4401`() async throws {
            try await withLab { lab in
                let client = try await lab.client(lab.gateway(), register: false)
                try await client.send("REGISTER", ["auth": ["type": "API_KEY", "api_key": "wrong"], "platform": "WEB"])
                #expect(try await client.expect("ERROR").payload["error_code"] == "AUTH_FAILED")
                #expect(try await client.closed() == 4401)
            }
        }

        @Test func `frames that are too long, binary or not UTF-8 close the socket with their code`() async throws {
            try await withLab { lab in
                let gateway = try await lab.gateway()
                let long = try await lab.client(gateway)
                try await long.send(
                    text: WebSocketClient.envelope(
                        "REQUEST", ["request_id": "a", "content": ["text": .string(String(repeating: "x", count: 1 << 20))]]))
                let longCode = try await long.closed()
                #expect(longCode == 1009)
                let parts = try await lab.client(gateway)
                try await parts.send(.text, ByteBuffer(repeating: 0x20, count: 600_000), final: false)
                // The server may close the socket before everything is written.
                try? await parts.send(.continuation, ByteBuffer(repeating: 0x20, count: 600_000))
                let partsCode = try await parts.closed()
                #expect(partsCode == 1009)
                let binary = try await lab.client(gateway)
                try await binary.send(.binary, ByteBuffer(bytes: [1, 2, 3]))
                let binaryCode = try await binary.closed()
                #expect(binaryCode == 1003)
                let broken = try await lab.client(gateway)
                try await broken.send(.text, ByteBuffer(bytes: [0x22, 0xFF, 0x22]))
                let brokenCode = try await broken.closed()
                #expect(brokenCode == 1007)
                let fine = try await lab.client(gateway)
                #expect(fine.isOpen)
            }
        }
    }
}
