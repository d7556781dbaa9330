import Contract
import JSONCodec
import JobQueue

/// Converts the events of one job into the RESPONSE and ERROR messages of one request. Does no I/O: messages are passed to the caller as
/// bytes.
struct RelayMachine {
    /// A message takes no further text event once its text has this many bytes, so that long replays are split.
    static let frameMaximum = 32 << 10

    private let requestID: String
    private let jobID: JobID
    private let sessionID: String
    private let wantsReasoning: Bool
    /// Whether audio is sent to the client.
    private let speaks: Bool
    /// Whether the closing frame of a finished answer closes the voice although there was none.
    let closesSilence: Bool
    /// The last event that the client has. Events up to it are added to the answer but not sent. Nil: the client has none.
    private let known: EventID?

    /// Next `text_stream_seq` and `voice_stream_seq`.
    private var nextText = 0
    private var nextVoice = 0
    private var hasSentFrame = false
    /// Whether the event `known` was received, which proves that the log contains it.
    private var hasSeenKnown = false
    /// The function calls received since the last restart.
    private(set) var calls: [ChatHistory.Call] = []
    private let filter: ResamplingFilter?
    /// The audio received since the last restart.
    private var voiceStream: VoiceStream
    /// What the audio speaks.
    var spoken: SpokenText { voiceStream.spoken }
    /// Whether any audio event was received: there is a speech upstream.
    private var hasVoice = false
    /// Whether no further voice is sent, because the request was interrupted.
    var isSilenced = false
    /// Nil until the terminal event.
    private(set) var ending: EndedRequest.Ending?
    /// What the user said, for a VOICE request; nil until it is recognized.
    private(set) var transcript: String?
    /// The text of the answer so far.
    private(set) var answer = ""

    /// - Parameter filter: from `Audio.sampleRate` to the client's sample rate; nil: they are equal.
    init(
        requestID: String, jobID: JobID, sessionID: String, wantsReasoning: Bool, speaks: Bool, closesSilence: Bool = true,
        filter: ResamplingFilter? = nil, known: EventID? = nil
    ) {
        self.requestID = requestID
        self.jobID = jobID
        self.sessionID = sessionID
        self.wantsReasoning = wantsReasoning
        self.speaks = speaks
        self.closesSilence = closesSilence
        self.filter = filter
        voiceStream = VoiceStream(filter)
        self.known = known
    }

    /// Processes events. Those after the terminal event are ignored.
    /// - Parameters:
    ///   - events: in order, without gaps or duplicates.
    ///   - milliseconds: timestamp of the messages, since 1970.
    ///   - emit: receives the JSON of each message; nil when no client is connected, in which case only the answer is updated.
    mutating func receive(_ events: [LoggedEvent], milliseconds: Int, emit: (([UInt8]) -> Void)?) {
        var index = 0
        while index < events.count, ending == nil {
            let event = events[index]
            let emit = known.map { event.id <= $0 && !event.event.isTerminal } == true ? nil : emit
            switch event.event {
            case .text, .reasoning: index = receiveTexts(events, from: index, milliseconds, emit)
            default:
                receiveOne(event, milliseconds, emit)
                index += 1
            }
            if events[index - 1].id == known { hasSeenKnown = true }
        }
    }

    /// Handles an attempt that continues from the event log. The client may have received more than the log contains: PUBLISH is not
    /// fenced, so output is delivered even when Redis has no memory to log it, and a restarted Redis may have lost its last second. The new
    /// output does not continue such text, so the client gets a restart and then the logged text again.
    private mutating func receiveResumed(at offset: Int, _ id: EventID, _ milliseconds: Int, _ emit: (([UInt8]) -> Void)?) {
        let kept = String(decoding: answer.utf8.prefix(max(0, offset)), as: UTF8.self)
        let before = EventID(attempt: id.attempt, sequence: id.sequence - 1)
        // The client's last event is either not in the log, or has the id of the restart message sent below.
        let isAhead = known.map { $0 == before || $0 < before && !hasSeenKnown } ?? false
        guard answer.utf8.count > offset || !calls.isEmpty || isAhead else { return }
        answer = kept
        restart(before, milliseconds, emit)
        guard let emit, !kept.isEmpty else { return }
        frame(id, milliseconds, emit) { out in
            out.appendJSONName("content")
            out.append(UInt8(ascii: "{"))
            out.appendJSONMember("text", kept)
            out.append(UInt8(ascii: "}"))
        }
    }

    /// Restarts the sequence numbers and sends a message with `restarted`, on which the client discards the text it has.
    private mutating func restart(_ id: EventID, _ milliseconds: Int, _ emit: (([UInt8]) -> Void)?) {
        nextText = 0
        nextVoice = 0
        calls = []
        voiceStream = VoiceStream(filter)
        guard let emit else { return }
        frame(id, milliseconds, emit) { out in
            Self.appendEmptyContent(to: &out)
            out.appendJSONMember("restarted", true)
        }
    }

    /// Sends consecutive text or reasoning events as one message.
    /// - Returns: the index after the last event taken.
    private mutating func receiveTexts(
        _ events: [LoggedEvent], from start: Int, _ milliseconds: Int, _ emit: (([UInt8]) -> Void)?
    ) -> Int {
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

    /// Processes any event other than text.
    private mutating func receiveOne(_ event: LoggedEvent, _ milliseconds: Int, _ emit: (([UInt8]) -> Void)?) {
        switch event.event {
        case .started, .upstream, .retrieved, .text, .reasoning, .reasoningMark: break
        case .transcript(let text):
            transcript = text
            guard let emit else { return }
            frame(event.id, milliseconds, emit) { out in
                Self.appendEmptyContent(to: &out)
                out.appendJSONMember("transcript", text)
            }
        case .resumed(let offset): receiveResumed(at: offset, event.id, milliseconds, emit)
        case .restarted:
            answer = ""
            restart(event.id, milliseconds, emit)
        case .toolCall(let call):
            let made = ChatHistory.Call(call)
            calls.append(made)
            guard let emit else { return }
            frame(event.id, milliseconds, emit) { out in
                Self.appendEmptyContent(to: &out)
                out.appendJSONName("function_call")
                out.append(UInt8(ascii: "{"))
                out.appendJSONMember("name", call.name)
                out.appendJSONName("parameters")
                Self.parameters(call.arguments).append(to: &out)
                out.append(UInt8(ascii: "}"))
                out.appendJSONMember("call_id", made.id)
            }
        case .audio(let audio):
            guard speaks else { return }
            hasVoice = true
            // Also without a client, because the conversion depends on the audio before.
            let data = voiceStream.receive(audio)
            if let emit, !data.isEmpty, !isSilenced { voice(data, event.id, milliseconds, emit) }
        case .finished(let reason, let usage, _):
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

    /// The arguments of a function call as JSON; an empty object when they are not an object or an array.
    private static func parameters(_ arguments: String) -> JSON {
        let json = try? JSON(parsing: arguments, rules: .lenient)
        switch json {
        case .object, .array: return json ?? [:]
        default: return [:]
        }
    }

    // MARK: frames

    /// Emits a message with the next `text_stream_seq`.
    private mutating func frame(_ id: EventID, _ milliseconds: Int, _ emit: ([UInt8]) -> Void, _ body: (inout [UInt8]) -> Void) {
        var out = opened(id, isLast: false)
        out.appendJSONMember("text_stream_seq", nextText)
        nextText += 1
        body(&out)
        finish(&out, milliseconds, emit)
    }

    /// Emits a message with audio and the next `voice_stream_seq`.
    private mutating func voice(_ data: String, _ id: EventID, _ milliseconds: Int, _ emit: ([UInt8]) -> Void) {
        var out = opened(id, isLast: false)
        out.appendJSONMember("voice_stream_seq", nextVoice)
        if nextVoice == 0 { out.appendJSONMember("voice_sample_rate", filter?.outputRate ?? Audio.sampleRate) }
        nextVoice += 1
        out.appendJSONName("content")
        out.append(UInt8(ascii: "{"))
        out.appendJSONMember("voice", data)
        out.append(UInt8(ascii: "}"))
        finish(&out, milliseconds, emit)
    }

    /// Emits the last message, with sequence numbers of -1.
    private mutating func close(_ id: EventID, _ milliseconds: Int, _ emit: (([UInt8]) -> Void)?, _ body: (inout [UInt8]) -> Void) {
        guard let emit else { return }
        var out = opened(id, isLast: true)
        out.appendJSONMember("text_stream_seq", -1)
        // A worker with a speech upstream closes the voice of every finished answer, so without any audio there is none.
        let isSilent = ending == .finished && !hasVoice
        if speaks, closesSilence || !isSilent { out.appendJSONMember("voice_stream_seq", -1) }
        Self.appendEmptyContent(to: &out)
        body(&out)
        finish(&out, milliseconds, emit)
    }

    /// - Returns: the beginning of a message. The first and the last one of a request include the job's id.
    private mutating func opened(_ id: EventID, isLast: Bool) -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(320)
        EnvelopeWriter.open("RESPONSE", session: sessionID, into: &out)
        out.append(UInt8(ascii: "{"))
        out.appendJSONMember("request_id", requestID)
        out.appendJSONName("event_id")
        out.append(UInt8(ascii: "\""))
        id.append(to: &out)
        out.append(UInt8(ascii: "\""))
        if isLast || !hasSentFrame { out.appendJSONMember("job_id", jobID.rawValue) }
        hasSentFrame = true
        return out
    }

    /// Completes a message and emits it.
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
