import Contract
import JSONCodec
import NIOCore
import NIOWebSocket
import TestSupport
import Testing

@testable import Gateway
@testable import JobQueue

/// The messages that the published client of protocol 1.0 sends, one after the other on one socket, each with its expected answer. The test acts
/// as the worker.
@Suite(.redis, .timeLimit(.minutes(10))) struct ProtocolMessageTableTests {
    /// What a message is answered with. The JSON is part of the answer's payload.
    private enum Answer {
        case message(String, String)
        /// The closing frame of a request; `messages` is the number of messages in the job's request.
        case closing(String, messages: Int)
        case nothing
    }

    private static let usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)
    private static let finished = #"{"finish_reason":"stop","text_stream_seq":-1}"#
    private static let malformed = Answer.message("ERROR", #"{"error_code":"MALFORMED_PAYLOAD","retryable":false}"#)

    private static func text(_ id: String, _ more: String = "", text: String = "hi") -> String {
        #"{"request_id":"\#(id)","data_type":"TEXT","stream_flag":false,"stream_seq":0,"content":{"text":"\#(text)"}\#(more)}"#
    }

    private static func voice(_ id: String, _ sequence: Int, _ content: String, isStream: Bool = true) -> String {
        #"{"request_id":"\#(id)","data_type":"VOICE","stream_flag":\#(isStream),"stream_seq":\#(sequence),"content":{\#(content)}}"#
    }

    private static func info(_ members: String) -> Answer {
        .message("SESSION_INFO", #"{"status":"SUCCESS","session_data":{\#(members)}}"#)
    }

    private static let query = ("SESSION_QUERY", #"{"query_fields":["require_tts","enable_srs","function_calling"]}"#)
    private static let tool = #"[{"name":"f","description":"d","parameters":[{"name":"x","type":"string"}]}]"#

    /// The type and payload of each message, and its answer. The history grows by two messages with each finished request.
    private static let table: [(type: String, payload: String, answer: Answer)] = [
        ("HEALTH_CHECK", "{}", .message("HEALTH_CHECK_ACK", #"{"health_status":{"status":"HEALTHY"}}"#)),
        ("HEARTBEAT_REPLY", "{}", .nothing),
        ("HEARTBEAT_REPLY", #"{"client_timestamp":1}"#, .nothing),
        (query.0, query.1, info(#""require_tts":false,"enable_srs":false,"function_calling":[]"#)),
        ("SESSION_QUERY", "{}", info(#""platform":"WEB","active_request_ids":[]"#)),
        ("SESSION_QUERY", #"{"query_fields":null}"#, info(#""platform":"WEB""#)),
        // Requests with an empty update, as that client sends them.
        ("REQUEST", text("t1", #","update_session":{}"#), .closing(finished, messages: 1)),
        ("REQUEST", text("t2", #","update_session":null,"model":"m","function_calling":null"#), .closing(finished, messages: 3)),
        ("REQUEST", text("t2"), .message("ERROR", #"{"error_code":"DUPLICATE_REQUEST","request_id":"t2"}"#)),
        ("RESUME", #"{"request_id":"t2"}"#, .closing(finished, messages: 0)),
        ("RESUME", #"{"request_id":"t2","last_event_id":"1-1"}"#, .closing(finished, messages: 0)),
        ("RESUME", #"{"request_id":"none"}"#, .message("ERROR", #"{"error_code":"SESSION_INVALID","request_id":"none"}"#)),
        ("RESUME", #"{"request_id":"t8","last_event_id":"x"}"#, malformed),
        // Updates without a text, in both spellings.
        (
            "REQUEST", text("u1", #","update_session":{"require_tts":true,"enable_srs":true,"function_calling":\#(tool)}"#, text: ""),
            .nothing
        ),
        (query.0, query.1, info(#""require_tts":true,"enable_srs":true,"function_calling":[{"name":"f"}]"#)),
        ("REQUEST", text("u2", #","update_session":{"requireTTS":false,"enableSRS":false,"functionCalling":[]}"#, text: ""), .nothing),
        (query.0, query.1, info(#""require_tts":false,"enable_srs":false,"function_calling":[]"#)),
        ("REQUEST", text("u3", #","require_tts":true,"enable_srs":true"#, text: ""), .nothing),
        (query.0, query.1, info(#""require_tts":true,"enable_srs":true"#)),
        ("REQUEST", text("u4", #","require_tts":false,"enable_srs":false"#, text: ""), .nothing),
        (
            "REQUEST", text("u5", #","update_session":{"system_prompt":{"role_description":"a","response_requirements":"b"}}"#, text: ""),
            .nothing
        ),
        ("REQUEST", text("t3"), .closing(finished, messages: 6)),
        (
            "REQUEST",
            text("u6", #","update_session":{"sceneContext":{"description":"c"},"systemPrompt":{"role_description":""}}"#, text: ""),
            .nothing
        ),
        ("REQUEST", text("t4"), .closing(finished, messages: 8)),
        (
            "REQUEST", text("u7", #","update_session":{"scene_context":{"scene_description":"","scene_specific_prompt":""}}"#, text: ""),
            .nothing
        ),
        ("REQUEST", text("u8", #","update_session":{"mood":"x"}"#), malformed),
        // Functions.
        ("REQUEST", text("f1", #","function_calling_op":"ADD","function_calling":\#(tool)"#, text: ""), .nothing),
        (query.0, query.1, info(#""function_calling":[{"name":"f","description":"d"}]"#)),
        (
            "REQUEST", text("f2", #","function_calling_op":"UPDATE","function_calling":[{"name":"f","description":"e"}]"#, text: ""),
            .nothing
        ),
        (query.0, query.1, info(#""function_calling":[{"name":"f","description":"e"}]"#)),
        ("REQUEST", text("f3", #","function_calling_op":"REPLACE","function_calling":[{"name":"g"}]"#, text: ""), .nothing),
        ("REQUEST", text("f4", #","function_calling_op":"DELETE","function_calling":[{"name":"g"}]"#, text: ""), .nothing),
        (query.0, query.1, info(#""function_calling":[]"#)),
        ("REQUEST", text("f5", #","function_calling_op":"REMOVE","function_calling":[]"#), malformed),
        ("REQUEST", text("f6", #","function_results":[{"call_id":"unknown","result":1}]"#, text: ""), malformed),
        // Voice.
        ("REQUEST", voice("v1", 0, #""voice_mode":"BASE64","voice":"AAAA""#, isStream: false), .closing(finished, messages: 9)),
        ("REQUEST", voice("v2", 0, #""voice_mode":"BASE64","voice":"AAAA","audio_format":"wav""#), .nothing),
        ("REQUEST", voice("v2", 1, #""voice_mode":"BASE64","voice":"AAAA""#), .nothing),
        ("REQUEST", voice("v2", -1, #""voice_mode":"BASE64","voice":"""#), .closing(finished, messages: 11)),
        ("REQUEST", voice("v3", 0, #""voice_mode":"BINARY""#), .nothing),
        ("binary", "", .nothing),
        ("REQUEST", voice("v3", -1, #""voice_mode":"BINARY""#), .closing(finished, messages: 13)),
        // The microphone is flushed after the end.
        ("binary", "", .nothing),
        ("REQUEST", voice("v4", 2, #""voice_mode":"BINARY""#), .message("ERROR", #"{"error_code":"STREAM_SEQ_ERROR","request_id":"v4"}"#)),
        ("REQUEST", voice("v5", 0, #""voice_mode":"OPUS""#), malformed),
        (
            "REQUEST", text("i1").replacing("TEXT", with: "IMAGE"),
            .message("ERROR", #"{"error_code":"UNSUPPORTED_DATA_TYPE","request_id":"i1"}"#)
        ),
        ("REQUEST", #"{"data_type":"TEXT","content":{"text":"x"}}"#, malformed),
        ("REQUEST", #"{"request_id":"t9","data_type":"TEXT","content":"x"}"#, malformed),
        // Interrupts with nothing to interrupt.
        ("INTERRUPT", "{}", .message("INTERRUPT_ACK", #"{"status":"FAILED","interrupted_request_ids":[]}"#)),
        ("INTERRUPT", #"{"interrupt_request_id":"","reason":"USER_VOICE_INPUT"}"#, .message("INTERRUPT_ACK", #"{"status":"FAILED"}"#)),
        (
            "INTERRUPT", #"{"interrupt_request_id":"t1","reason":"USER_NEW_INPUT"}"#,
            .message(
                "INTERRUPT_ACK", #"{"status":"FAILED","interrupt_request_id":"t1","results":[{"request_id":"t1","state":"finished"}]}"#)
        ),
        (
            "INTERRUPT", #"{"interrupt_request_id":["none"],"reason":"CLIENT_ERROR","played_ms":12.5}"#,
            .message("INTERRUPT_ACK", #"{"interrupt_request_id":["none"],"results":[{"state":"unknown"}]}"#)
        ),
        ("INTERRUPT", #"{"reason":"no spaces allowed"}"#, malformed),
        ("PLAYED", #"{"request_id":"t1","ms":10}"#, .nothing),
        ("PLAYED", #"{"request_id":"none","ms":10}"#, .message("ERROR", #"{"error_code":"SESSION_INVALID","request_id":"none"}"#)),
        ("REGISTER", #"{"auth":{"type":"API_KEY","api_key":"k"}}"#, malformed),
        ("WHATEVER", "{}", malformed),
        ("SHUTDOWN", #"{"reason":"USER_LOGOUT"}"#, .message("SHUTDOWN", #"{"reason":"requested by the client"}"#)),
    ]

    /// Whether `whole` has all members of `part`.
    private static func contains(_ whole: JSON?, _ part: JSON) -> Bool {
        switch part {
        case .object(let object): object.members.allSatisfy { contains(whole?[$0.name], $0.value) }
        case .array(let elements):
            whole?.array?.count == elements.count && zip(whole?.array ?? [], elements).allSatisfy { contains($0.0, $0.1) }
        default: whole == part
        }
    }

    @Test func `each message of the published client has its answer`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway {
                $0.recognizes = true
                $0.heartbeat = .seconds(60)
            }
            let client = try await lab.client(gateway)
            for (index, row) in Self.table.enumerated() {
                let name = "\(index): \(row.type) \(row.payload)"
                if row.type == "binary" {
                    try await client.send(.binary, ByteBuffer(repeating: 1, count: 640))
                    continue
                }
                let payload = try JSON(parsing: row.payload)
                let id = payload["request_id"]?.string
                if let id, case .closing = row.answer {
                    client.state.update { $0.requests[id] = RequestChecker(id: id, model: nil) }
                    if row.type == "RESUME" { client.state.update { $0.requests[id]?.resume() } }
                }
                try await client.send(row.type, payload)
                switch row.answer {
                case .nothing: break
                case .message(let type, let part):
                    let answer = try await client.expect(type).payload
                    #expect(Self.contains(answer, try JSON(parsing: part)), "\(name): \(answer.text)")
                case .closing(let part, let messages):
                    if messages > 0 {
                        let job = try await lab.claim()
                        #expect(job.job.request["messages"]?.array?.count == messages, "\(name): \(job.job.request.members)")
                        if job.job.recognition != nil { try await job.write(.transcript("spoken")) }
                        try await job.write(.upstream(name: "u", model: "m"), .text("answer"))
                        try await job.end(.finished(.stop, Self.usage))
                    }
                    let end = try await ClientRequest(id: try #require(id), client: client).ended()
                    #expect(Self.contains(end.last, try JSON(parsing: part)), "\(name): \(end.last?.text ?? "")")
                }
                #expect(client.state.value.waiting.isEmpty, "\(name): \(client.state.value.waiting)")
            }
            #expect(try await client.closed() == 1000)
            #expect(client.problems.isEmpty, "\(client.problems)")
        }
    }
}
