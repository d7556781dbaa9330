import Contract
import JSONCodec

/// Generates and mutates messages of the WebSocket protocol: missing, repeated, too long, too deep or wrongly typed fields, numbers at the
/// limits of their ranges and, occasionally, mutated bytes.
package struct MessageFuzzer {
    package var random: SplitMix64

    package init(seed: UInt64) { random = SplitMix64(seed: seed) }

    /// The bytes of one message, mostly the valid JSON of an envelope.
    package mutating func message() -> [UInt8] {
        var json = envelope()
        for _ in 0..<Int.random(in: 0...3, using: &random) { json = mutated(json, depth: 0) }
        var bytes = json.bytes
        if chance(8) { mutate(&bytes) }
        return bytes
    }

    /// The payload of a message, valid or almost valid.
    package mutating func payload() -> JSONObject {
        let json = mutated(envelope()["payload"] ?? .null, depth: 0)
        return json.object ?? JSONObject([.init(name: "auth", value: json)])
    }

    package mutating func chance(_ of: Int) -> Bool { Int.random(in: 0..<of, using: &random) == 0 }

    // MARK: messages

    private mutating func envelope() -> JSON {
        let (type, payload) = body()
        return [
            "version": "1.0", "msg_type": .string(type), "session_id": chance(4) ? value() : "", "payload": payload,
            "timestamp": chance(4) ? value() : 1_763_800_000_000,
        ]
    }

    private mutating func body() -> (String, JSON) {
        switch Int.random(in: 0..<12, using: &random) {
        case 0:
            return (
                "REGISTER",
                [
                    "auth": ["type": "API_KEY", "api_key": value()], "platform": "TV", "require_tts": value(),
                    "function_calling": functions(),
                    "system_prompt": ["role_description": value()], "scene_context": value(), "resume_session_id": value(),
                ]
            )
        case 4: return ("REQUEST", voiceRequest())
        case 1...3:
            return (
                "REQUEST",
                [
                    "request_id": id(), "data_type": "TEXT", "stream_flag": false, "stream_seq": value(),
                    "content": ["text": chance(2) ? "" : value()], "model": chance(2) ? "m" : value(), "supersede": .bool(chance(3)),
                    "function_results": chance(8) ? [["call_id": id(), "result": value()]] : .null,
                    "function_calling_op": .string(["REPLACE", "ADD", "UPDATE", "DELETE"].randomElement(using: &random) ?? ""),
                    "function_calling": functions(),
                    "update_session": [
                        "systemPrompt": ["role_description": value(), "response_requirements": value()], "sceneContext": value(),
                        "functionCalling": functions(), "requireTTS": .bool(chance(2)), "reasoning": value(),
                        "auto_supersede": .bool(chance(2)),
                        "scene_context": chance(4) ? ["description": value(), "scene_specific_prompt": value()] : .null,
                    ],
                ]
            )
        case 5, 6:
            let ids: JSON = chance(2) ? id() : .array((0..<Int.random(in: 0...5, using: &random)).map { _ in id() })
            return ("INTERRUPT", ["interrupt_request_id": ids, "reason": chance(2) ? "USER_STOP" : value(), "played_ms": value()])
        case 7: return ("RESUME", ["request_id": id(), "last_event_id": chance(2) ? .string("\(number())-\(number())") : value()])
        case 8: return ("SESSION_QUERY", ["query_fields": ["platform", value(), "function_calling"]])
        case 9: return ("HEARTBEAT_REPLY", ["x": value()])
        case 10: return chance(2) ? ("HEALTH_CHECK", [:]) : ("PLAYED", ["request_id": id(), "ms": value()])
        default: return (chance(40) ? "SHUTDOWN" : "NOTHING", ["reason": value()])
        }
    }

    /// A VOICE request: whole, a piece, or the start or end of binary frames. Few ids, so that pieces meet.
    private mutating func voiceRequest() -> JSON {
        let audio = String(repeating: "UklG", count: Int.random(in: 0...40, using: &random))
        let mode: JSON = chance(2) ? "BASE64" : chance(8) ? value() : "BINARY"
        return [
            "request_id": chance(10) ? value() : .string("v\(Int.random(in: 0..<3, using: &random))"), "data_type": "VOICE",
            "stream_flag": chance(10) ? value() : .bool(!chance(3)),
            "stream_seq": chance(10) ? value() : .integer(Int.random(in: -1...2, using: &random)),
            "content": [
                "voice_mode": mode, "voice": chance(8) ? value() : mode == "BASE64" ? .string(audio) : .null,
                "audio_format": chance(8) ? value() : chance(2) ? "pcm" : "wav",
            ], "supersede": .bool(chance(4)), "require_tts": .bool(chance(2)),
        ]
    }

    private mutating func id() -> JSON { chance(6) ? value() : .string("r\(Int.random(in: 0..<20, using: &random))") }

    private mutating func functions() -> JSON {
        let count = chance(20) ? Int.random(in: 100...200, using: &random) : Int.random(in: 0...3, using: &random)
        return .array(
            (0..<count).map { _ in
                let parameters = chance(20) ? 150 : Int.random(in: 0...3, using: &random)
                let list: JSON = .array((0..<parameters).map { ["name": .string("p\($0)"), "type": chance(3) ? value() : "int"] })
                return ["name": id(), "description": value(), "parameters": chance(3) ? value() : list]
            })
    }

    // MARK: values

    private mutating func number() -> String {
        [
            "0", "1", "-1", "2", "1e3", "1e308", "1e999", "-0", "0.5", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
            "9007199254740993", "18446744073709551615", "2147483648", "00", "1763800000000",
        ].randomElement(using: &random) ?? "0"
    }

    private mutating func value() -> JSON {
        switch Int.random(in: 0..<12, using: &random) {
        case 0: return .null
        case 1: return .bool(chance(2))
        case 2: return .number(number())
        case 3: return .string(number())
        case 4: return .string("")
        case 5:
            let piece = ["x", "é", "\u{1F600}", "\u{0}", "\u{202E}", "\u{1B}[2J", "\"\\", "e\u{0301}"].randomElement(using: &random) ?? "x"
            return .string(
                String(repeating: piece, count: [1, 63, 64, 65, 127, 128, 129, 256, 257, 5_000].randomElement(using: &random) ?? 1))
        case 6: return .array([])
        case 7: return [:]
        case 8:
            var json: JSON = 1
            for _ in 0..<Int.random(in: 1...40, using: &random) { json = chance(2) ? [json] : ["a": json] }
            return json
        case 9: return .array((0..<Int.random(in: 1...50, using: &random)).map { .integer($0) })
        default: return .string("word")
        }
    }

    /// Mutates one place in a value.
    private mutating func mutated(_ json: JSON, depth: Int) -> JSON {
        switch json {
        case .object(let object) where !object.members.isEmpty && depth < 8:
            var members = object.members
            let index = Int.random(in: members.indices, using: &random)
            switch Int.random(in: 0..<8, using: &random) {
            case 0: members.remove(at: index)
            case 1: members.append(members[index])
            case 2: members[index].value = value()
            case 3: members.insert(.init(name: "unknown", value: value()), at: index)
            case 4: members[index].name = ["payload", "request_id", "auth", "name", ""].randomElement(using: &random) ?? ""
            default: members[index].value = mutated(members[index].value, depth: depth + 1)
            }
            return .object(JSONObject(members))
        case .array(var elements) where !elements.isEmpty && depth < 8:
            let index = Int.random(in: elements.indices, using: &random)
            switch Int.random(in: 0..<4, using: &random) {
            case 0: elements.remove(at: index)
            case 1: elements.append(elements[index])
            default: elements[index] = mutated(elements[index], depth: depth + 1)
            }
            return .array(elements)
        default: return value()
        }
    }

    /// Up to five mutations: flipped bits, special bytes, removed parts, repeated parts.
    package mutating func mutate(_ bytes: inout [UInt8]) {
        for _ in 0..<Int.random(in: 1...5, using: &random) where !bytes.isEmpty {
            let place = Int.random(in: bytes.indices, using: &random)
            switch random.next() % 6 {
            case 0: bytes[place] ^= 1 << UInt8(random.next() % 8)
            case 1: bytes[place] = Array(#"{}[]":,\0-9eE.u"#.utf8).randomElement(using: &random) ?? 0
            case 2: bytes[place] = UInt8.random(in: 0...255, using: &random)
            case 3: bytes.removeSubrange(place..<min(bytes.count, place + Int.random(in: 1...16, using: &random)))
            case 4: bytes.insert(contentsOf: bytes[place..<min(bytes.count, place + Int.random(in: 1...64, using: &random))], at: place)
            default: bytes.insert(contentsOf: Array(repeating: bytes[place], count: Int.random(in: 1...200, using: &random)), at: place)
            }
        }
    }

    /// `bytes` split into one to four parts.
    package mutating func pieces(_ bytes: [UInt8]) -> [[UInt8]] {
        var pieces: [[UInt8]] = []
        var rest = bytes[...]
        while pieces.count < 3, !rest.isEmpty, chance(2) {
            let count = Int.random(in: 0...rest.count, using: &random)
            pieces.append(Array(rest.prefix(count)))
            rest = rest.dropFirst(count)
        }
        return pieces + [Array(rest)]
    }
}
