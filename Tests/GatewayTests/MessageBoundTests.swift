import Contract
import JSONCodec
import JobQueue
import NIOCore
import RedisClient
import Support
import TestSupport
import Testing

@testable import Gateway

/// The limits of messages and session records, and the cost of the largest allowed ones.
@Suite(.serialized, .cpuBound)
struct MessageBoundTests {
    private static func x(_ count: Int) -> JSON { .string(String(repeating: "x", count: count)) }

    private static func refusal(_ body: () throws -> Void) throws -> ProtocolError {
        try #require(throws: ProtocolError.self, performing: body)
    }

    @Test func `names are limited in bytes, and the error names the field and its limit`() throws {
        func request(_ id: JSON, model: JSON? = nil) throws {
            var payload = JSONObject()
            payload["request_id"] = id
            payload["data_type"] = "TEXT"
            payload["content"] = ["text": ""]
            payload["model"] = model
            _ = try RequestPayload(payload)
        }
        func register(_ name: String, _ value: JSON) throws {
            var payload = JSONObject()
            payload["auth"] = ["type": "API_KEY", "api_key": "k"]
            payload[name] = value
            _ = try RegisterPayload(payload)
        }
        func envelope(_ session: JSON) throws {
            let json: JSON = ["version": "1.0", "msg_type": "SHUTDOWN", "session_id": session, "payload": [:], "timestamp": 0]
            _ = try Envelope(parsing: ByteBuffer(bytes: json.bytes), maximumDepth: 32)
        }
        func interrupt(_ name: String, _ value: JSON) throws {
            _ = try InterruptPayload(JSONObject([.init(name: name, value: value)]))
        }
        let table: [(String, Int, (JSON) throws -> Void)] = [
            ("request_id", 128, { try request($0) }), ("model", 256, { try request("r", model: $0) }),
            ("session_id", 128, envelope), ("resume_session_id", 128, { try register("resume_session_id", $0) }),
            ("function_calling.name", 64, { try register("function_calling", [["name": $0]]) }),
            ("interrupt_request_id", 128, { try interrupt("interrupt_request_id", $0) }),
            ("interrupt_request_id", 128, { try interrupt("interrupt_request_id", ["a", $0]) }),
            ("reason", 64, { try interrupt("reason", $0) }),
            ("request_id", 128, { _ = try ResumePayload(JSONObject([.init(name: "request_id", value: $0)])) }),
        ]
        for (field, maximum, parse) in table {
            try parse(Self.x(maximum))
            for text in [Self.x(maximum + 1), .string(String(repeating: "é", count: maximum / 2 + 1)), Self.x(800_000)] {
                let error = try Self.refusal { try parse(text) }
                #expect(error.code == .malformedPayload && error.message.contains("\"\(field)\""), "\(error.message.prefix(200))")
                #expect(error.message.contains("\(maximum)") && error.message.utf8.count < 200, "\(error.message.prefix(200))")
            }
        }
        // An error quotes only the beginning of an unknown word, whatever its characters.
        let mark = "x" + String(repeating: "\u{0301}", count: 100_000)
        let json: JSON = ["version": "1.0", "msg_type": .string(mark), "payload": [:], "timestamp": 0]
        let error = try Self.refusal { _ = try Envelope(parsing: ByteBuffer(bytes: json.bytes), maximumDepth: 32) }
        #expect(error.message.utf8.count < 200)
    }

    private static func function(_ name: String, parameters: Int) -> JSON {
        ["name": .string(name), "parameters": .array((0..<parameters).map { ["name": .string("p\($0)"), "type": "int"] })]
    }

    @Test func `functions and their parameters are limited, and each is converted once`() throws {
        for count in [129, 60_000] {
            let error = try Self.refusal { _ = try FunctionDefinition(Self.function("f", parameters: count)) }
            #expect(error.code == .malformedPayload && error.message.contains("\"f\"") && error.message.contains("128 parameters"))
            let schema: JSON = .object(JSONObject((0..<count).map { .init(name: "p\($0)", value: [:]) }))
            #expect(throws: ProtocolError.self) { try FunctionDefinition(["name": "f", "parameters": ["properties": schema]]) }
        }
        let most = try FunctionDefinition(Self.function("f", parameters: 128))
        let properties = most.tool["function"]?["parameters"]?["properties"]?.object
        #expect(properties?.members.count == 128 && properties?["p127"] == ["type": "integer"])
        let twice = try FunctionDefinition(
            ["name": "f", "parameters": [["name": "a", "type": "int"], ["name": "b"], ["name": "a", "type": "bool"]]])
        #expect(
            twice.tool["function"]?["parameters"]?["properties"]?.text == #"{"a":{"type":"boolean"},"b":{"type":"string"}}"#)
        // The maximum number of functions, added by one operation each.
        let list: JSON = .array((0..<128).map { Self.function("f\($0)", parameters: 2) })
        var settings = SessionSettings()
        for operation: JSON in ["REPLACE", "ADD", "UPDATE", "ADD"] {
            let update = try SessionUpdate(
                JSONObject([.init(name: "function_calling_op", value: operation), .init(name: "function_calling", value: list)]))
            settings = try update.applied(to: settings)
            #expect(settings.functions.map(\.name) == (0..<128).map { "f\($0)" })
        }
        let more = try SessionUpdate(
            JSONObject([.init(name: "function_calling_op", value: "ADD"), .init(name: "function_calling", value: [["name": "one more"]])]))
        #expect(try Self.refusal { _ = try more.applied(to: settings) }.message.contains("128 functions"))
    }

    @Test func `a session's settings are limited in bytes`() throws {
        func register(_ count: Int) throws {
            var payload = JSONObject()
            payload["auth"] = ["type": "API_KEY", "api_key": "k"]
            payload["system_prompt"] = Self.x(count)
            _ = try RegisterPayload(payload, maximumSize: 2_000)
        }
        try register(1_700)
        let error = try Self.refusal { try register(2_000) }
        #expect(error.code == .payloadTooLarge && error.message.contains("2000 bytes"))
        let update = try SessionUpdate(JSONObject([.init(name: "update_session", value: ["sceneContext": Self.x(2_000)])]))
        #expect(try Self.refusal { _ = try update.applied(to: SessionSettings(), maximumSize: 2_000) }.code == .payloadTooLarge)
    }

    private static func record(_ fields: [(String, String)]) -> SessionRecord? {
        let texts = ["3"] + fields.flatMap { [$0.0, $0.1] }
        return SessionRecord(.array(texts.map { .bulk(ByteBuffer(string: $0)) }))
    }

    @Test func `a record with invalid values is read without errors`() throws {
        let numbers = [
            "9223372036854775807", "-9223372036854775808", "9223372036854775808", "-1", "1e308", "nan", "", "x", "9007199254740993",
        ]
        let ended = JSON.array((0..<1_000).map { [.string("r\($0)"), "p0-j", "finished"] }).text
        for number in numbers {
            let record = try #require(
                Self.record([
                    ("owner", "o"), ("epoch", "4"), ("created_ms", number), ("last_request_ms", number), ("ended", ended),
                    ("history", "[[1,2],[\"a\"],[\"a\",\"b\",\"c\"],null]"), ("settings", "{\"function_calling\":[{}],\"platform\":7}"),
                    ("r:a", number), ("r:b", "[\"p0-j\",null,\(number.isEmpty ? "0" : "1")]"), ("r:", "[]"),
                ]))
            let now = WallClock.milliseconds
            #expect((0...now).contains(record.createdMilliseconds) && (0...now).contains(record.lastRequestMilliseconds), "\(number)")
            #expect(record.ended.count == EndedRequest.maximumCount && record.ended.last?.id == "r999")
            let history = ChatHistory(stored: record.history, maximumTurns: 20, maximumSize: 100)
            #expect(history.turns.map(\.user) == ["a"])
        }
        #expect(Self.record([("owner", "o"), ("epoch", "1e3")]) == nil && Self.record([("epoch", "1")]) == nil)
        #expect(SessionRecord(.array([])) == nil && SessionRecord(.null) == nil && SessionRecord(.array([.array([])])) == nil)
    }

    @Test func `a long history is shortened in one pass`() {
        var history = ChatHistory(maximumTurns: 1_000, maximumSize: 10_000)
        for number in 0..<1_000 { history.append(user: "\(number % 10)", answer: "a") }
        #expect(history.turns.count == 1_000 && history.size == 2_000)
        history.append(user: String(repeating: "x", count: 9_999), answer: "")
        #expect(history.turns.count == 1 && history.size == 9_999)
        let stored: JSON = .array((0..<100_000).map { [.string("\($0)"), ""] })
        #expect(ChatHistory(stored: stored, maximumTurns: 3, maximumSize: 100).turns.map(\.user) == ["99997", "99998", "99999"])
    }
}
