import Contract
import JSONCodec
import NIOCore
import NIOWebSocket
import TestSupport
import Testing

@testable import Gateway

/// Hostile messages that are valid JSON or close to it.
@Suite(.redis, .timeLimit(.minutes(10))) struct OddMessageTests {
    private static func envelope(_ type: String, _ payload: String, timestamp: String = "1") -> String {
        "{\"version\":\"1.0\",\"msg_type\":\"\(type)\",\"session_id\":\"\",\"payload\":\(payload),\"timestamp\":\(timestamp)}"
    }

    /// Messages with the ERROR code of the response; nil for SESSION_INFO.
    private static let messages: [(String, String?)] = [
        (envelope("SESSION_QUERY", "{}", timestamp: "1e999"), nil), (envelope("SESSION_QUERY", "{}", timestamp: "-0.0"), nil),
        (envelope("SESSION_QUERY", "{}", timestamp: String(repeating: "9", count: 10_000)), nil),
        (envelope("SESSION_QUERY", "{}", timestamp: "0x10"), "MALFORMED_PAYLOAD"),
        (envelope("SESSION_QUERY", "{}", timestamp: "NaN"), "MALFORMED_PAYLOAD"),
        (envelope("SESSION_QUERY", "{}") + "{}", "MALFORMED_PAYLOAD"), ("\u{FEFF}" + envelope("SESSION_QUERY", "{}"), "MALFORMED_PAYLOAD"),
        ("", "MALFORMED_PAYLOAD"), ("null", "MALFORMED_PAYLOAD"), ("\0", "MALFORMED_PAYLOAD"),
        (envelope("SESSION_QUERY", "{\"query_fields\":{\"a\":1}}"), nil),
        (envelope("SESSION_QUERY", "{\"query_fields\":[null,7,\"\\u0000\"]}"), nil),
        (envelope("SESSION_QUERY", String(repeating: "[", count: 500) + String(repeating: "]", count: 500)), "MALFORMED_PAYLOAD"),
        (envelope("SESSION_QUERY", String(repeating: "{\"a\":", count: 5_000)), "MALFORMED_PAYLOAD"),
        (envelope("RESUME", "{\"request_id\":\"r\",\"last_event_id\":\"99999999999999999999-0\"}"), "MALFORMED_PAYLOAD"),
        (envelope("RESUME", "{\"request_id\":\"\\u0000\"}"), "SESSION_INVALID"),
        (envelope("REQUEST", "{\"request_id\":\"\(String(repeating: "é", count: 101))\"}"), "MALFORMED_PAYLOAD"),
        (
            envelope("INTERRUPT", "{\"interrupt_request_id\":[\(Array(repeating: "\"a\"", count: 1_001).joined(separator: ","))]}"),
            "MALFORMED_PAYLOAD"
        ),
        (
            envelope(
                "REQUEST", "{\"request_id\":\"f\",\"data_type\":\"TEXT\",\"content\":{\"text\":\"\"},\"function_calling\":[{\"name\":7}]}"),
            "MALFORMED_PAYLOAD"
        ),
    ]

    @Test func `each message is answered, and the socket and its session stay usable`() async throws {
        try await withWebSocketLab { lab in
            // The client's reply to a heartbeat must not come between the fragments of a message.
            let gateway = try await lab.gateway { $0.heartbeat = .seconds(3_600) }
            let client = try await lab.client(gateway)
            for (message, error) in Self.messages {
                try await client.send(text: message)
                let answer = try await client.expect(error == nil ? "SESSION_INFO" : "ERROR").payload
                #expect(error == nil || answer["error_code"]?.string == error, "\(message.prefix(200)): \(answer.text)")
            }
            // An unpaired surrogate is rejected or replaced; the text stored in Redis is valid UTF-8.
            let text = "NUL \u{0} and U+FFFF \u{FFFF}"
            let request = try await client.request(text, model: "m", id: "\u{0} \u{1F600}\n\"")
            let job = try await lab.claim()
            #expect(job.job.request["messages"]?[0]?["content"]?.string == text)
            try await job.write(.upstream(name: "u", model: "m"), .text(text))
            try await job.end(.finished(.stop, Usage(promptTokens: 1, completionTokens: 1, estimated: false)))
            #expect(try await request.ended().text == text)
            // Fragments of one byte with a ping between them.
            let ping = Array(Self.envelope("SESSION_QUERY", "{\"query_fields\":[\"platform\"]}").utf8)
            for (index, byte) in ping.enumerated() {
                try await client.send(index == 0 ? .text : .continuation, ByteBuffer(bytes: [byte]), final: index == ping.count - 1)
                if index % 16 == 3 { try await client.send(.ping, ByteBuffer(string: "between")) }
            }
            #expect(try await client.expect("SESSION_INFO").payload["session_data"] == ["platform": "WEB"])
            #expect(client.problems.isEmpty, "\(client.problems)")
            await client.close()
        }
    }

    @Test(arguments: ["rsv", "fragmented ping", "long ping", "close of one byte", "close with a reserved code"])
    func `frames that RFC 6455 forbids close the socket with 1002`(fault: String) async throws {
        try await withWebSocketLab { lab in
            let client = try await lab.client(lab.gateway())
            switch fault {
            case "rsv": try await client.send(WebSocketOpcode(encodedWebSocketOpcode: 5) ?? .text, ByteBuffer())
            case "fragmented ping": try await client.send(.ping, ByteBuffer(), final: false)
            case "long ping": try await client.send(.ping, ByteBuffer(repeating: 0, count: 126))
            case "close of one byte": try await client.send(.connectionClose, ByteBuffer(bytes: [3]))
            default: try await client.send(.connectionClose, ByteBuffer(bytes: [0x03, 0xED]))
            }
            #expect(try await client.closed() == 1002)
        }
    }
}
