import Contract
import JSONCodec
import Support
import Testing

struct EventTests {
    @Test(arguments: [("1-0", 1, 0), ("12-345", 12, 345), ("0-0", 0, 0)])
    func `an event's id is attempt and sequence`(text: String, attempt: Int, sequence: Int) {
        let id = EventID(text)
        #expect(id == EventID(attempt: attempt, sequence: sequence))
        #expect(id?.description == text)
        #expect(id?.next == EventID(attempt: attempt, sequence: sequence + 1))
    }

    @Test(arguments: [
        "", "1", "-", "1-", "-1", "a-1", "1-b", "1-2-3", "1--2", "-1-2", "1 -2", "1-99999999999999999999", "1.0-2", "+1-2", "1-+2", "1-٢",
    ])
    func `invalid event ids`(text: String) { #expect(EventID(text) == nil) }

    @Test func `ids are ordered by attempt, then sequence, as numbers`() {
        let ordered = ["1-0", "1-2", "1-10", "2-0", "2-1", "10-0"].compactMap { EventID($0) }
        #expect(ordered.sorted() == ordered && ordered.count == 6)
        #expect(ordered.shuffled().sorted() == ordered)
    }

    @Test func `the parts of an id are below 2^53, and the next id does not overflow`() throws {
        let largest = try #require(EventID("9007199254740991-9007199254740991"))
        #expect(largest.next.sequence == 9_007_199_254_740_992 && largest.nextAttempt.attempt == 9_007_199_254_740_992)
        for text in ["1-9007199254740992", "9007199254740992-0", "1-9223372036854775807", "9223372036854775807-0"] {
            #expect(EventID(text) == nil, "\(text)")
        }
        let beyond = EventID(attempt: .max, sequence: .max)
        #expect(beyond.next == beyond && beyond.nextAttempt == EventID(attempt: .max, sequence: 0))
    }

    private static let usage = Usage(promptTokens: 22, completionTokens: 382, estimated: true)
    static let all: [GenerationEvent] =
        [
            .started(worker: "host-1-a", attempt: 3), .resumed(textOffset: 17), .restarted, .upstream(name: "up \"1\"", model: "qwen-plus"),
            .text(" w1\n杭州\u{2028}\0"), .reasoning("because\\"), .reasoningMark(.signature("c2ln+/==")),
            .reasoningMark(.redacted("ZGF0YQ==")),
            .finished(.stop, usage, stopSequence: "\n\n\""),
            .toolCall(ToolCall(index: 1, callID: "call_0b", name: "get_weather", arguments: #"{"loc":"a\"b"}"#)),
            .audio(Audio(index: 4, format: "pcm", data: "AAAA//+/", last: false)),
            .audio(Audio(index: 5, format: "pcm", data: "", last: true)),
            .interrupted(Interruption(reason: "my own reason", phase: .backoff, usage: usage, latencyMicroseconds: 250)),
            .interrupted(Interruption(reason: "USER_STOP", phase: .queued, usage: .none)),
            .interrupted(Interruption(reason: "USER_STOP", phase: .streaming, usage: usage, deliveredTokens: 0, savedTokens: 93)),
            .audio(Audio(index: 3, format: "pcm", data: "AAE=", last: false, textOffset: 0, textFinish: .length)),
            .failed(Failure(.overloaded, "upstream said: \"no\"", upstreamStatus: 529), usage),
            .failed(Failure(.internal, "", retryable: false), .none),
        ] + [FinishReason.stop, .length, .toolCalls, .contentFilter].map { .finished($0, usage) }
        + Phase.allCases.map { .interrupted(Interruption(reason: "r", phase: $0, usage: .none)) }
        + FailureCode.allCases.map { .failed(Failure($0, "m"), .none) }

    @Test(arguments: all) func `events are encoded and decoded`(event: GenerationEvent) throws {
        let logged = LoggedEvent(id: EventID(attempt: 2, sequence: 41), event: event)
        #expect(try LoggedEvent(parsing: logged.json) == logged)
        let json = try JSON(parsing: logged.json)
        #expect(json["id"] == "2-41" && json["type"]?.string == event.type)
        #expect(event.isTerminal == ["finished", "interrupted", "failed"].contains(event.type))
    }

    @Test func `a channel message is an array of events`() throws {
        let events = Self.all.enumerated().map { LoggedEvent(id: EventID(attempt: 1, sequence: $0.offset), event: $0.element) }
        let bytes = Array(("[" + events.map { String(decoding: $0.json, as: UTF8.self) }.joined(separator: " , ") + "]").utf8)
        #expect(try LoggedEvent.array(parsing: bytes.span) == events)
        let none = Array("[]".utf8)
        #expect(try LoggedEvent.array(parsing: none.span).isEmpty)
        for text in ["", "{}", "[{}]", "[1]", "[", "null", #"[{"id":"1-0"}]"#] {
            let bytes = Array(text.utf8)
            #expect(throws: JSONError.self, "\(text)") { try LoggedEvent.array(parsing: bytes.span) }
        }
    }

    /// Events as specified by the contract.
    @Test(arguments: [
        (GenerationEvent.started(worker: "w", attempt: 1), #"{"id":"1-0","type":"started","worker":"w","attempt":1}"#),
        (.resumed(textOffset: 7), #"{"id":"1-0","type":"resumed","text_offset":7}"#), (.restarted, #"{"id":"1-0","type":"restarted"}"#),
        (.upstream(name: "u", model: "m"), #"{"id":"1-0","type":"upstream","name":"u","model":"m"}"#),
        (.text("t"), #"{"id":"1-0","type":"text","text":"t"}"#), (.reasoning("t"), #"{"id":"1-0","type":"reasoning","text":"t"}"#),
        (.reasoningMark(.signature("s")), #"{"id":"1-0","type":"reasoning","text":"","signature":"s"}"#),
        (
            .toolCall(ToolCall(index: 0, callID: "c", name: "n", arguments: "{}")),
            #"{"id":"1-0","type":"tool_call","index":0,"call_id":"c","name":"n","arguments":"{}"}"#
        ),
        (
            .audio(Audio(index: 0, format: "pcm", data: "AA", last: true)),
            #"{"id":"1-0","type":"audio","index":0,"format":"pcm","data":"AA","last":true}"#
        ),
        (
            .finished(.stop, Usage(promptTokens: 1, completionTokens: 2, estimated: false)),
            #"{"id":"1-0","type":"finished","reason":"stop","usage":{"prompt_tokens":1,"completion_tokens":2,"estimated":false}}"#
        ),
        (
            .interrupted(Interruption(reason: "USER_STOP", phase: .streaming, usage: .none, latencyMicroseconds: 9)),
            #"{"id":"1-0","type":"interrupted","reason":"USER_STOP","phase":"streaming","usage":{"prompt_tokens":0,"completion_tokens":0,"estimated":false},"latency_us":9}"#
        ),
        (
            .failed(Failure(.rateLimited, "m", upstreamStatus: 429), .none),
            #"{"id":"1-0","type":"failed","code":"rate_limited","message":"m","retryable":true,"upstream_status":429,"usage":{"prompt_tokens":0,"completion_tokens":0,"estimated":false}}"#
        ),
    ])
    func `events are encoded as in the contract`(event: GenerationEvent, text: String) {
        #expect(String(decoding: LoggedEvent(id: EventID(attempt: 1, sequence: 0), event: event).json, as: UTF8.self) == text)
    }

    @Test func `members may be in any order, and unknown ones are skipped`() throws {
        let text = #"{"new":[{"a":1}],"text":"x","type":"text","id":"3-4"}"#
        #expect(try LoggedEvent(parsing: Array(text.utf8)) == LoggedEvent(id: EventID(attempt: 3, sequence: 4), event: .text("x")))
    }

    @Test(arguments: [
        "{}", #"{"type":"text","text":"x"}"#, #"{"id":"1","type":"text","text":"x"}"#, #"{"id":"1-0","type":"dance"}"#, #"{"id":"1-0"}"#,
        #"{"id":1,"type":"text","text":"x"}"#, #"{"id":"1-0","type":"text","text":5}"#,
        #"{"id":"1-0","type":"text","text":"x"}x"#, "null", "[]",
    ])
    func `invalid events are rejected`(text: String) {
        #expect(throws: JSONError.self) { try LoggedEvent(parsing: Array(text.utf8)) }
    }

    /// A newer version may have written it.
    @Test(arguments: [
        (
            #"{"id":"1-0","type":"finished","reason":"bored","usage":{"prompt_tokens":1,"completion_tokens":2,"estimated":false}}"#,
            GenerationEvent.finished(.stop, Usage(promptTokens: 1, completionTokens: 2, estimated: false))
        ),
        (
            #"{"id":"1-0","type":"interrupted","reason":"NEW","phase":"dreaming","billing":"exact"}"#,
            .interrupted(Interruption(reason: "NEW", phase: .claimed, usage: .none))
        ),
        (
            #"{"id":"1-0","type":"failed","code":"future_failure","message":"m","retryable":true}"#,
            .failed(Failure(.internal, "m", retryable: true), .none)
        ),
    ])
    func `a terminal event with unknown values ends the job`(text: String, event: GenerationEvent) throws {
        #expect(try LoggedEvent(parsing: Array(text.utf8)).event == event)
        let message = Array("[\(text)]".utf8)
        #expect(try LoggedEvent.array(parsing: message.span).map(\.event) == [event])
    }

    @Test func `an event of an unknown type does not hide the others of its message`() throws {
        let text = #"[{"id":"1-1","type":"text","text":"a"},{"id":"1-2","type":"future","text":"b"},{"id":"1-3","type":"restarted"}]"#
        let message = Array(text.utf8)
        #expect(try LoggedEvent.array(parsing: message.span).map(\.id.sequence) == [1, 3])
    }

    @Test func `usage is added, and the sum is an estimate if one part is`() {
        let exact = Usage(promptTokens: 1, completionTokens: 2, estimated: false)
        #expect(exact + exact == Usage(promptTokens: 2, completionTokens: 4, estimated: false))
        #expect((exact + Usage(promptTokens: 0, completionTokens: 0, estimated: true)).estimated)
        #expect(exact + .none == exact)
        #expect(Usage(exact.json) == exact)
        #expect(Usage(nil) == nil && Usage([:]) == nil && Usage(["prompt_tokens": 1]) == nil)
        #expect(Usage(["prompt_tokens": 1, "completion_tokens": 2])?.estimated == true)
    }

    @Test func `details of the usage are kept, and added where they are known`() throws {
        let usage = Usage(promptTokens: 9, completionTokens: 8, estimated: false, cachedTokens: 7, reasoningTokens: 6)
        #expect(Usage(usage.json) == usage)
        let logged = LoggedEvent(id: EventID(attempt: 1, sequence: 1), event: .finished(.stop, usage))
        #expect(try LoggedEvent(parsing: logged.json).event == .finished(.stop, usage))
        let other = Usage(promptTokens: 1, completionTokens: 1, estimated: false, reasoningTokens: 1)
        #expect(usage + other == Usage(promptTokens: 10, completionTokens: 9, estimated: false, cachedTokens: 7, reasoningTokens: 7))
        #expect(!other.json.text.contains("cached_tokens"))
    }

    @Test(arguments: [
        ("-9223372036854775808", 0), ("-1", 0), ("9223372036854775807", Int.maximumExact), ("1e300", Int.maximumExact),
        ("1e400", Int.maximumExact), ("-1e400", 0), ("7.0", 7),
    ])
    func `numbers in an event are limited`(number: String, bounded: Int) throws {
        func event(_ fields: String) throws -> GenerationEvent {
            try LoggedEvent(parsing: Array(#"{"id":"1-0",\#(fields)}"#.replacing("N", with: number).utf8)).event
        }
        #expect(try event(#""type":"resumed","text_offset":N"#) == .resumed(textOffset: bounded))
        #expect(try event(#""type":"started","worker":"w","attempt":N"#) == .started(worker: "w", attempt: bounded))
        let usage = Usage(promptTokens: bounded, completionTokens: bounded, estimated: false)
        let cost = #""usage":{"prompt_tokens":N,"completion_tokens":N,"estimated":false}"#
        #expect(try event(#""type":"finished","reason":"stop",\#(cost)"#) == .finished(.stop, usage))
        #expect(
            try event(#""type":"audio","index":N,"format":"pcm","data":"","last":false,"text_offset":N"#)
                == .audio(Audio(index: bounded, format: "pcm", data: "", last: false, textOffset: bounded)))
        #expect(
            try event(
                #""type":"interrupted","reason":"r","phase":"streaming","latency_us":N,"delivered_tokens":N,"saved_tokens":N,\#(cost)"#)
                == .interrupted(
                    Interruption(
                        reason: "r", phase: .streaming, usage: usage, latencyMicroseconds: bounded, deliveredTokens: bounded,
                        savedTokens: bounded)))
        let sum = [Usage](repeating: usage, count: 4_000).reduce(.none, +)
        #expect(sum.promptTokens >= bounded && sum.completionTokens >= bounded)
        #expect(Usage(try JSON(parsing: #"{"prompt_tokens":\#(number),"completion_tokens":\#(number)}"#))?.promptTokens == bounded)
    }

    @Test func `long names in an event are truncated`() throws {
        let long = String(repeating: "é", count: 100_000)
        for fields in [
            #""type":"started","worker":"N""#, #""type":"upstream","name":"N","model":"N""#,
            #""type":"interrupted","reason":"N","phase":"queued""#,
        ] {
            let text = #"{"id":"1-0",\#(fields)}"#.replacing("N", with: long)
            #expect(try LoggedEvent(parsing: Array(text.utf8)).json.count < 1_000)
        }
    }

    @Test func `failure codes of the contract`() {
        let contract = """
            invalid_request unsupported_parameter model_not_found authentication permission content_filtered rate_limited quota_exhausted overloaded \
            upstream_error upstream_unreachable upstream_disconnected upstream_truncated upstream_protocol first_token_timeout idle_timeout total_timeout \
            deadline_exceeded recognition_failed output_too_large worker_lost internal
            """
        #expect(FailureCode.allCases.map(\.rawValue) == contract.split(separator: " ").map(String.init))
        #expect(
            Phase.allCases.map(\.rawValue) == [
                "queued", "claimed", "recognizing", "retrieving", "connecting", "waiting", "streaming", "speaking", "backoff",
            ])
        #expect(JobState.allCases.filter(\.isTerminal) == [.finished, .interrupted, .failed])
    }

    @Test func `the message of a failure is limited`() {
        #expect(Failure(.internal, String(repeating: "é", count: 5_000)).message.count == Failure.maximumMessageLength)
        // One character of any number of bytes.
        let stacked = "e" + String(repeating: "\u{301}", count: 500_000)
        #expect(Failure(.internal, stacked).message.utf8.count <= 4 * Failure.maximumMessageLength)
    }

    @Test(arguments: [
        (#"{"id":"a","reason":"USER_STOP"}"#, "a", "USER_STOP"),
        (#"{"reason":"my.own_reason-7","id":"b","more":1}"#, "b", "my.own_reason-7"),
        (#"{"id":"d","reason":"x y"}"#, "d", "USER_STOP"), (#"{"id":"e","reason":"\u202e"}"#, "e", "USER_STOP"),
        (#"{"id":"c"}"#, "c", "USER_STOP"),
    ])
    func `an interrupt has an id and a reason`(text: String, id: String, reason: String) throws {
        let interrupt = try #require(Interrupt(parsing: Array(text.utf8)))
        #expect(interrupt.id.rawValue == id && interrupt.reason == reason)
        #expect(Interrupt(parsing: interrupt.text.utf8) == interrupt)
    }

    @Test(arguments: [
        "", "x", "[]", "{}", "null", #"{"id":7}"#, #"{"id":""}"#, #"{"reason":"x"}"#, #"{"id":"a","reason":7}"#,
        #"{"id":"a","reason":null}"#, #"{"id":"a b"}"#,
        String(repeating: "{", count: 5_000), #"{"id":"a""#, #"{"id":"a"}x"#, #"{"id":"a","more":[[[[[1]]]]]}"#,
    ])
    func `invalid interrupts`(text: String) { #expect(Interrupt(parsing: Array(text.utf8)) == nil) }

    @Test func `the reason of an interrupt is limited`() throws {
        let long = try #require(JobID("a"))
        #expect(Interrupt(id: long, reason: String(repeating: "r", count: 64)).reason == String(repeating: "r", count: 64))
        for reason in [String(repeating: "r", count: 65), String(repeating: "é", count: 33), "", "a b", "a\n", "\u{1B}"] {
            #expect(Interrupt(id: long, reason: reason).reason == InterruptReason.userStop)
        }
    }
}
