import Contract
import JSONCodec
import JobQueue
import Testing

@testable import Gateway

/// Encoding of a job's events as frames of a WebSocket.
@Suite struct RelayMachineTests {
    private static let usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)
    private static let usageText = #"{"prompt_tokens":1,"completion_tokens":2,"estimated":false}"#

    private static func machine(reasoning: Bool = false, speaks: Bool = false, known: EventID? = nil) throws -> RelayMachine {
        RelayMachine(
            requestID: "r", jobID: try #require(JobID("p0-J")), sessionID: "s", wantsReasoning: reasoning, speaks: speaks, known: known)
    }

    private static func events(attempt: Int = 1, from sequence: Int = 0, _ events: GenerationEvent...) -> [LoggedEvent] {
        events.enumerated().map { LoggedEvent(id: EventID(attempt: attempt, sequence: sequence + $0.offset), event: $0.element) }
    }

    /// The payloads of the frames without `request_id`; also checks the envelopes.
    private static func frames(_ machine: inout RelayMachine, _ events: [LoggedEvent]) throws -> [String] {
        var texts: [[UInt8]] = []
        machine.receive(events, milliseconds: 17) { texts.append($0) }
        return try texts.map { bytes in
            let json = try JSON(parsing: bytes)
            #expect(json.object?.names == ["version", "msg_type", "session_id", "payload", "timestamp"])
            #expect(
                json["version"] == "1.0" && json["session_id"] == "s" && json["timestamp"] == 17 && json["payload"]?["request_id"] == "r")
            var payload = try #require(json["payload"]?.object)
            payload["request_id"] = nil
            return (json["msg_type"]?.string ?? "") + JSON.object(payload).text
        }
    }

    @Test func `a complete answer`() throws {
        var machine = try Self.machine()
        let first = try Self.frames(
            &machine, Self.events(.started(worker: "w", attempt: 1), .upstream(name: "u", model: "m"), .text("a\""), .text("b")))
        #expect(first == [#"RESPONSE{"event_id":"1-3","job_id":"p0-J","text_stream_seq":0,"content":{"text":"a\"b"}}"#])
        #expect(
            try Self.frames(&machine, Self.events(from: 4, .text("c")))
                == [#"RESPONSE{"event_id":"1-4","text_stream_seq":1,"content":{"text":"c"}}"#])
        #expect(
            try Self.frames(&machine, Self.events(from: 5, .text("d"), .finished(.stop, Self.usage), .text("never"))) == [
                #"RESPONSE{"event_id":"1-5","text_stream_seq":2,"content":{"text":"d"}}"#,
                #"RESPONSE{"event_id":"1-6","job_id":"p0-J","text_stream_seq":-1,"content":{},"finish_reason":"stop","usage":\#(Self.usageText)}"#,
            ])
        #expect(machine.ending == .finished && machine.answer == "a\"bcd")
        #expect(try Self.frames(&machine, Self.events(from: 7, .text("never"))).isEmpty)
    }

    @Test func `a request interrupted in the queue`() throws {
        var machine = try Self.machine(speaks: true)
        let interruption = Interruption(reason: "USER_STOP", phase: .queued, usage: .none)
        let frames = try Self.frames(&machine, Self.events(.interrupted(interruption)))
        #expect(
            frames == [
                #"RESPONSE{"event_id":"1-0","job_id":"p0-J","text_stream_seq":-1,"voice_stream_seq":-1,"content":{},"finish_reason":"interrupted","interrupted":true,"interrupt_reason":"USER_STOP","phase":"queued","usage":{"prompt_tokens":0,"completion_tokens":0,"estimated":false}}"#
            ])
        #expect(machine.ending == .interrupted)
    }

    @Test func `a takeover`() throws {
        var machine = try Self.machine()
        _ = try Self.frames(&machine, Self.events(.started(worker: "w", attempt: 1), .text("old")))
        let resumed = try Self.frames(
            &machine, Self.events(attempt: 2, .started(worker: "x", attempt: 2), .resumed(textOffset: 3), .text(" on")))
        #expect(resumed == [#"RESPONSE{"event_id":"2-2","text_stream_seq":1,"content":{"text":" on"}}"#])
        let anew = try Self.frames(&machine, Self.events(attempt: 3, .started(worker: "x", attempt: 3), .restarted, .text("new")))
        #expect(
            anew == [
                #"RESPONSE{"event_id":"3-1","text_stream_seq":0,"content":{},"restarted":true}"#,
                #"RESPONSE{"event_id":"3-2","text_stream_seq":1,"content":{"text":"new"}}"#,
            ])
        #expect(machine.answer == "new")
    }

    /// PUBLISH is not fenced: a client may have received live output that Redis, out of memory, did not log. The next attempt resumes from
    /// the log.
    @Test func `live output missing in the log is retracted before an attempt resumes from the log`() throws {
        var machine = try Self.machine()
        _ = try Self.frames(&machine, Self.events(.started(worker: "w", attempt: 1), .text("lögged"), .text(" heard")))
        let next = Self.events(attempt: 2, .started(worker: "x", attempt: 2), .resumed(textOffset: 7), .text(" on"))
        #expect(
            try Self.frames(&machine, next) == [
                #"RESPONSE{"event_id":"2-0","text_stream_seq":0,"content":{},"restarted":true}"#,
                #"RESPONSE{"event_id":"2-1","text_stream_seq":1,"content":{"text":"lögged"}}"#,
                #"RESPONSE{"event_id":"2-2","text_stream_seq":2,"content":{"text":" on"}}"#,
            ])
        #expect(machine.answer == "lögged on")
        // Function calls are not resumed: one received live is not in the log.
        var calling = try Self.machine()
        _ = try Self.frames(&calling, Self.events(.text("lögged"), .toolCall(ToolCall(index: 0, callID: "c", name: "f", arguments: "{}"))))
        #expect(try Self.frames(&calling, next).count == 3 && calling.answer == "lögged on")
    }

    @Test func `a client that resumes after an event missing in the log restarts from the log`() throws {
        let log =
            Self.events(.started(worker: "w", attempt: 1), .text("logged"))
            + Self.events(attempt: 2, .started(worker: "x", attempt: 2), .resumed(textOffset: 6), .text(" on"))
        for (known, count) in [("1-1", 1), ("1-2", 3), ("2-0", 3), ("2-1", 1), ("2-2", 0)] {
            var machine = try Self.machine(known: EventID(known))
            #expect(try Self.frames(&machine, log).count == count, "\(known)")
            #expect(machine.answer == "logged on")
        }
    }

    @Test func `reasoning is sent only on request`() throws {
        let events = Self.events(.reasoning("r0"), .reasoning("r1"), .text("t"))
        var silent = try Self.machine()
        #expect(try Self.frames(&silent, events).count == 1)
        var asking = try Self.machine(reasoning: true)
        #expect(
            try Self.frames(&asking, events) == [
                #"RESPONSE{"event_id":"1-1","job_id":"p0-J","text_stream_seq":0,"content":{},"reasoning":"r0r1"}"#,
                #"RESPONSE{"event_id":"1-2","text_stream_seq":1,"content":{"text":"t"}}"#,
            ])
        #expect(asking.answer == "t")
    }

    @Test func `function calls`() throws {
        var machine = try Self.machine()
        func call(_ arguments: String) -> GenerationEvent { .toolCall(ToolCall(index: 0, callID: "c", name: "f", arguments: arguments)) }
        let frames = try Self.frames(&machine, Self.events(call(#"{"x": 1}"#), call(""), call("broken")))
        #expect(
            frames == [
                #"RESPONSE{"event_id":"1-0","job_id":"p0-J","text_stream_seq":0,"content":{},"function_call":{"name":"f","parameters":{"x":1}},"call_id":"c"}"#,
                #"RESPONSE{"event_id":"1-1","text_stream_seq":1,"content":{},"function_call":{"name":"f","parameters":{}},"call_id":"c"}"#,
                #"RESPONSE{"event_id":"1-2","text_stream_seq":2,"content":{},"function_call":{"name":"f","parameters":{}},"call_id":"c"}"#,
            ])
    }

    @Test func voice() throws {
        let events = Self.events(
            .text("t"), .audio(Audio(index: 0, format: "pcm", data: "AAAA", last: false)),
            .audio(Audio(index: 1, format: "pcm", data: "", last: true)), .finished(.stop, Self.usage))
        var speaking = try Self.machine(speaks: true)
        let frames = try Self.frames(&speaking, events)
        #expect(frames.count == 3)
        #expect(frames[1] == #"RESPONSE{"event_id":"1-1","voice_stream_seq":0,"voice_sample_rate":24000,"content":{"voice":"AAAA"}}"#)
        #expect(frames[2].contains(#""text_stream_seq":-1,"voice_stream_seq":-1"#))
        var silent = try Self.machine()
        #expect(try Self.frames(&silent, events).allSatisfy { !$0.contains("voice") })
    }

    @Test func `the voice ends with an interrupt, and the text goes on`() throws {
        var machine = try Self.machine(speaks: true)
        let samples = Audio(index: 0, format: "pcm", data: "AAAA", last: false)
        _ = try Self.frames(&machine, Self.events(.audio(samples)))
        machine.isSilenced = true
        #expect(
            try Self.frames(&machine, Self.events(from: 1, .audio(samples), .text("a"))) == [
                #"RESPONSE{"event_id":"1-2","text_stream_seq":0,"content":{"text":"a"}}"#
            ])
        let end = try Self.frames(&machine, Self.events(from: 3, .finished(.stop, Self.usage)))
        #expect(end.first?.contains(#""voice_stream_seq":-1"#) == true)
        #expect(machine.spoken.sentences.map(\.samples) == [2], "what was on its way was not heard")
    }

    @Test func `a voice that only an earlier request asked for is closed where there is a speech upstream`() throws {
        func closing(_ events: GenerationEvent...) throws -> Bool {
            var machine = RelayMachine(
                requestID: "r", jobID: try #require(JobID("p0-J")), sessionID: "s", wantsReasoning: false, speaks: true,
                closesSilence: false)
            let logged = events.enumerated().map { LoggedEvent(id: EventID(attempt: 1, sequence: $0.offset), event: $0.element) }
            return try Self.frames(&machine, logged).last?.contains(#""voice_stream_seq":-1"#) == true
        }
        let end = Audio(index: 0, format: "pcm", data: "", last: true)
        #expect(try !closing(.text("a"), .finished(.stop, Self.usage)))
        #expect(try closing(.text("a"), .audio(end), .finished(.stop, Self.usage)))
        #expect(try closing(.interrupted(Interruption(reason: "x", phase: .queued, usage: .none))), "whether there is one is not known")
    }

    @Test func failures() throws {
        for code in FailureCode.allCases {
            var machine = try Self.machine()
            let frames = try Self.frames(&machine, Self.events(.text("t"), .failed(Failure(code, "why"), .none)))
            let expected = ErrorCode(code).rawValue
            #expect(
                frames.last
                    == #"ERROR{"error_code":"\#(expected)","error_msg":"why","error_detail":"\#(code.rawValue)","retryable":\#(code.isRetryable)}"#
            )
            #expect(frames.count == 2 && machine.ending == .failed)
        }
        #expect(ErrorCode(.quotaExhausted) == .rateLimited && ErrorCode(.deadlineExceeded) == .requestTimeout)
        #expect(ErrorCode(.workerLost) == .internalError && ErrorCode(.modelNotFound) == .upstreamError)
    }

    @Test func `events that the client has are not sent again`() throws {
        let log = Self.events(.started(worker: "w", attempt: 1), .text("a"), .text("b"), .text("c"), .finished(.stop, Self.usage))
        for last in 0...4 {
            var machine = try Self.machine(known: EventID(attempt: 1, sequence: last))
            let frames = try Self.frames(&machine, log)
            #expect(machine.answer == "abc" && frames.last?.contains(#""text_stream_seq":-1"#) == true)
            let rest = String("abc".dropFirst(last))
            if rest.isEmpty {
                #expect(frames.count == 1)
            } else {
                #expect(frames.first?.contains(#""job_id":"p0-J","text_stream_seq":0,"content":{"text":"\#(rest)"}"#) == true, "\(frames)")
            }
        }
    }

    @Test func `a relay without a client`() throws {
        var machine = try Self.machine()
        machine.receive(Self.events(.text("a"), .text("b")), milliseconds: 0, emit: nil)
        #expect(machine.answer == "ab")
        #expect(
            try Self.frames(&machine, Self.events(from: 2, .text("c"))).first?.contains(#""job_id":"p0-J","text_stream_seq":0"#) == true)
    }

    @Test func `a long replay is split into frames`() throws {
        var machine = try Self.machine()
        let piece = String(repeating: "x", count: 10_000)
        let events = (0..<10).map { LoggedEvent(id: EventID(attempt: 1, sequence: $0), event: .text(piece)) }
        #expect(try Self.frames(&machine, events).count == 3)
        #expect(machine.answer.utf8.count == 100_000)
    }
}
