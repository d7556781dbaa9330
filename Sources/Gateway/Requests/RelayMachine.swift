import Contract
import JSONCodec

/// Turns one job's events into the RESPONSE frames of one request. No I/O: frames are handed to the caller as bytes.
struct RelayMachine {
    /// How the request ended, for the session's memory.
    enum Ending: String, Sendable, Hashable {
        case finished, interrupted, failed
    }

    /// Bytes of text from which on a frame takes no further event: a long replay comes in pieces.
    static let frameMaximum = 32 << 10

    private let requestID: String
    private let jobID: JobID
    private let sessionID: String
    private let wantsReasoning: Bool
    private let speaks: Bool
    /// Events up to this one are known to the client: they count for the answer, but make no frame.
    private let known: EventID?

    private var nextText = 0
    private var nextVoice = 0
    private var hasSentFrame = false
    /// The event `known` came by: the log holds it.
    private var hasSeenKnown = false
    /// A function call was relayed in the current attempt.
    private var hasCalled = false
    private(set) var ending: Ending?
    /// The answer's text so far.
    private(set) var answer = ""

    init(requestID: String, jobID: JobID, sessionID: String, wantsReasoning: Bool, speaks: Bool, known: EventID? = nil) {
        self.requestID = requestID
        self.jobID = jobID
        self.sessionID = sessionID
        self.wantsReasoning = wantsReasoning
        self.speaks = speaks
        self.known = known
    }

    /// - Parameters:
    ///   - events: in order, without gaps or duplicates.
    ///   - milliseconds: the time that the frames state.
    ///   - emit: takes each frame's JSON; nil: nobody listens, the answer is remembered all the same.
    mutating func receive(_ events: [LoggedEvent], milliseconds: Int, emit: (([UInt8]) -> Void)?) {
        var index = 0
        while index < events.count, ending == nil {
            let event = events[index]
            let emit = known.map { event.id <= $0 && !event.event.isTerminal } == true ? nil : emit
            switch event.event {
            case .text, .reasoning: index = run(of: events, from: index, milliseconds, emit)
            default:
                one(event, milliseconds, emit)
                index += 1
            }
            if events[index - 1].id == known { hasSeenKnown = true }
        }
    }

    /// An attempt goes on from what the log holds. The client may have more than that: PUBLISH is not fenced, so what Redis had no memory
    /// for in the log was heard all the same, and a Redis that comes back without its last second has lost what was heard. What the new
    /// attempt generates does not follow on that: the client is told to begin anew, and gets what the log holds once more.
    private mutating func resumed(at offset: Int, _ id: EventID, _ milliseconds: Int, _ emit: (([UInt8]) -> Void)?) {
        let kept = String(decoding: answer.utf8.prefix(max(0, offset)), as: UTF8.self)
        let before = EventID(attempt: id.attempt, sequence: id.sequence - 1)
        // What the client named as its last event either never was in the log, or is the first of the two frames below.
        let isAhead = known.map { $0 == before || $0 < before && !hasSeenKnown } ?? false
        guard answer.utf8.count > offset || hasCalled || isAhead else { return }
        answer = kept
        begin(anew: before, milliseconds, emit)
        guard let emit, !kept.isEmpty else { return }
        frame(id, milliseconds, emit) { out in
            out.appendJSONName("content")
            out.append(UInt8(ascii: "{"))
            out.appendJSONMember("text", kept)
            out.append(UInt8(ascii: "}"))
        }
    }

    private mutating func begin(anew id: EventID, _ milliseconds: Int, _ emit: (([UInt8]) -> Void)?) {
        nextText = 0
        nextVoice = 0
        hasCalled = false
        guard let emit else { return }
        frame(id, milliseconds, emit) { out in
            Self.appendEmptyContent(to: &out)
            out.appendJSONMember("restarted", true)
        }
    }

    /// Several tokens that came together go out as one frame.
    private mutating func run(of events: [LoggedEvent], from start: Int, _ milliseconds: Int, _ emit: (([UInt8]) -> Void)?) -> Int {
        var index = start
        var text = ""
        var isText = true
        loop: while index < events.count {
            if index > start, let known, events[index - 1].id <= known, events[index].id > known { break }
            if text.utf8.count >= Self.frameMaximum { break }
            switch events[index].event {
            case .text(let part):
                guard index == start || isText else { break loop }
                isText = true
                text += part
            case .reasoning(let part):
                guard index == start || !isText else { break loop }
                isText = false
                text += part
            default: break loop
            }
            index += 1
        }
        if isText { answer += text }
        guard let emit, isText || wantsReasoning, !text.isEmpty else { return index }
        frame(events[index - 1].id, milliseconds, emit) { out in
            out.appendJSONName("content")
            out.append(UInt8(ascii: "{"))
            if isText { out.appendJSONMember("text", text) }
            out.append(UInt8(ascii: "}"))
            if !isText { out.appendJSONMember("reasoning", text) }
        }
        return index
    }

    private mutating func one(_ event: LoggedEvent, _ milliseconds: Int, _ emit: (([UInt8]) -> Void)?) {
        switch event.event {
        case .started, .upstream, .text, .reasoning: break
        case .resumed(let offset): resumed(at: offset, event.id, milliseconds, emit)
        case .restarted:
            answer = ""
            begin(anew: event.id, milliseconds, emit)
        case .toolCall(let call):
            hasCalled = true
            guard let emit else { return }
            frame(event.id, milliseconds, emit) { out in
                Self.appendEmptyContent(to: &out)
                out.appendJSONName("function_call")
                out.append(UInt8(ascii: "{"))
                out.appendJSONMember("name", call.name)
                out.appendJSONName("parameters")
                Self.parameters(call.arguments).append(to: &out)
                out.append(UInt8(ascii: "}"))
            }
        case .audio(let audio):
            guard let emit, speaks, !audio.data.isEmpty else { return }
            voice(audio.data, event.id, milliseconds, emit)
        case .finished(let reason, let usage):
            ending = .finished
            close(event.id, milliseconds, emit) { out in
                out.appendJSONMember("finish_reason", reason.rawValue)
                out.appendJSONName("usage")
                usage.append(to: &out)
            }
        case .interrupted(let interruption):
            ending = .interrupted
            close(event.id, milliseconds, emit) { out in
                out.appendJSONMember("finish_reason", "interrupted")
                out.appendJSONMember("interrupted", true)
                out.appendJSONMember("interrupt_reason", interruption.reason)
                out.appendJSONMember("phase", interruption.phase.rawValue)
                out.appendJSONName("usage")
                interruption.usage.append(to: &out)
                if let tokens = interruption.deliveredTokens { out.appendJSONMember("delivered_tokens", tokens) }
                if let tokens = interruption.savedTokens { out.appendJSONMember("saved_tokens", tokens) }
                if let latency = interruption.latencyMicroseconds { out.appendJSONMember("latency_us", latency) }
            }
        case .failed(let failure, _):
            ending = .failed
            guard let emit else { return }
            let error = ProtocolError(
                ErrorCode(failure.code), failure.message, detail: failure.code.rawValue, retryable: failure.retryable, requestID: requestID)
            emit(EnvelopeWriter.message("ERROR", session: sessionID, payload: error.payload, milliseconds: milliseconds))
        }
    }

    /// Arguments are JSON by the contract; what is not, or nothing, counts as none.
    private static func parameters(_ arguments: String) -> JSON {
        let json = try? JSON(parsing: arguments, rules: .lenient)
        switch json {
        case .object, .array: return json ?? [:]
        default: return [:]
        }
    }

    // MARK: frames

    private mutating func frame(_ id: EventID, _ milliseconds: Int, _ emit: ([UInt8]) -> Void, _ body: (inout [UInt8]) -> Void) {
        var out = opened(id, isLast: false)
        out.appendJSONMember("text_stream_seq", nextText)
        nextText += 1
        body(&out)
        finish(&out, milliseconds, emit)
    }

    private mutating func voice(_ data: String, _ id: EventID, _ milliseconds: Int, _ emit: ([UInt8]) -> Void) {
        var out = opened(id, isLast: false)
        out.appendJSONMember("voice_stream_seq", nextVoice)
        nextVoice += 1
        out.appendJSONName("content")
        out.append(UInt8(ascii: "{"))
        out.appendJSONMember("voice", data)
        out.append(UInt8(ascii: "}"))
        finish(&out, milliseconds, emit)
    }

    private mutating func close(_ id: EventID, _ milliseconds: Int, _ emit: (([UInt8]) -> Void)?, _ body: (inout [UInt8]) -> Void) {
        guard let emit else { return }
        var out = opened(id, isLast: true)
        out.appendJSONMember("text_stream_seq", -1)
        if speaks { out.appendJSONMember("voice_stream_seq", -1) }
        Self.appendEmptyContent(to: &out)
        body(&out)
        finish(&out, milliseconds, emit)
    }

    private mutating func opened(_ id: EventID, isLast: Bool) -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(320)
        EnvelopeWriter.open("RESPONSE", session: sessionID, into: &out)
        out.append(UInt8(ascii: "{"))
        out.appendJSONMember("request_id", requestID)
        out.appendJSONName("event_id")
        out.append(UInt8(ascii: "\""))
        out.appendDecimal(id.attempt)
        out.append(UInt8(ascii: "-"))
        out.appendDecimal(id.sequence)
        out.append(UInt8(ascii: "\""))
        if isLast || !hasSentFrame { out.appendJSONMember("job_id", jobID.rawValue) }
        hasSentFrame = true
        return out
    }

    private func finish(_ out: inout [UInt8], _ milliseconds: Int, _ emit: ([UInt8]) -> Void) {
        out.append(UInt8(ascii: "}"))
        EnvelopeWriter.close(milliseconds: milliseconds, into: &out)
        emit(out)
    }

    private static func appendEmptyContent(to out: inout [UInt8]) {
        out.appendJSONName("content")
        out.append(UInt8(ascii: "{"))
        out.append(UInt8(ascii: "}"))
    }
}
