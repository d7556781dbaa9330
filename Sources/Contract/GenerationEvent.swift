import JSONCodec

/// Why an upstream finished its answer, as in `finished.reason`.
package enum FinishReason: String, Sendable {
    case stop, length
    case toolCalls = "tool_calls"
    case contentFilter = "content_filter"
    /// The audio of the request contained no speech; no model was called.
    case noSpeech = "no_speech"
}

/// A complete call of a tool.
package struct ToolCall: Sendable, Hashable {
    package var index: Int
    package var callID: String
    package var name: String
    /// The arguments as JSON text.
    package var arguments: String

    package init(index: Int, callID: String, name: String, arguments: String) {
        self.index = index
        self.callID = callID
        self.name = name
        self.arguments = arguments
    }
}

/// What a provider needs in order to accept its own reasoning back in a later request. Opaque, and of use to the same provider only.
package enum ReasoningMark: Sendable, Hashable {
    /// The signature of the reasoning since the last mark.
    case signature(String)
    /// Reasoning that only the provider can read.
    case redacted(String)

    package var text: String {
        switch self {
        case .signature(let text), .redacted(let text): text
        }
    }
}

/// A chunk of speech output.
package struct Audio: Sendable, Hashable {
    /// Sample rate of the speech upstreams' output, in Hz.
    package static let sampleRate = 24_000

    /// The number of the chunk in the job, from 0.
    package var index: Int
    package var format: String
    /// The samples in Base64.
    package var data: String
    /// Whether this is the last chunk of the job.
    package var last: Bool
    /// The start of the spoken sentence in the text, in bytes of UTF-8.
    package var textOffset: Int?
    /// The end of the spoken sentence, like `textOffset`.
    package var textEnd: Int?
    /// The finish reason of the text, once the text is complete and only audio follows.
    package var textFinish: FinishReason?

    package init(
        index: Int, format: String, data: String, last: Bool, textOffset: Int? = nil, textEnd: Int? = nil, textFinish: FinishReason? = nil
    ) {
        self.index = index
        self.format = format
        self.data = data
        self.last = last
        self.textOffset = textOffset
        self.textEnd = textEnd
        self.textFinish = textFinish
    }
}

/// The receipt in an `interrupted` event.
package struct Interruption: Sendable, Hashable {
    package var reason: String
    package var phase: Phase
    package var usage: Usage
    /// Time from the worker's receipt of the signal until the upstream sockets were closed; nil when no worker ran the job.
    package var latencyMicroseconds: Int?
    /// Number of generated tokens that were written to the log; nil when no worker ran the job.
    package var deliveredTokens: Int?
    /// The requested maximum of tokens minus the generated tokens; nil when the job set no maximum.
    package var savedTokens: Int?

    package init(
        reason: String, phase: Phase, usage: Usage, latencyMicroseconds: Int? = nil, deliveredTokens: Int? = nil, savedTokens: Int? = nil
    ) {
        self.reason = reason
        self.phase = phase
        self.usage = usage
        self.latencyMicroseconds = latencyMicroseconds
        self.deliveredTokens = deliveredTokens
        self.savedTokens = savedTokens
    }
}

/// An event of a job, in its log and on its output channel. The contract defines order and meaning.
package enum GenerationEvent: Sendable, Hashable {
    case started(worker: String, attempt: Int)
    /// The new attempt continues; readers keep the first `textOffset` bytes of UTF-8.
    case resumed(textOffset: Int)
    case restarted
    case upstream(name: String, model: String)
    /// What the user said, as recognized.
    case transcript(String)
    /// The number of documents that retrieval added to the request.
    case retrieved(count: Int)
    case text(String)
    case reasoning(String)
    /// Ends a block of reasoning. A `reasoning` event without text, so that readers which do not know marks are not disturbed.
    case reasoningMark(ReasoningMark)
    case toolCall(ToolCall)
    case audio(Audio)
    /// - Parameter stopSequence: the stop sequence that ended the answer, where the upstream reports it.
    case finished(FinishReason, Usage, stopSequence: String? = nil)
    case interrupted(Interruption)
    case failed(Failure, Usage)

    /// The wire name of the event.
    package var type: String {
        switch self {
        case .started: "started"
        case .resumed: "resumed"
        case .restarted: "restarted"
        case .upstream: "upstream"
        case .transcript: "transcript"
        case .retrieved: "retrieved"
        case .text: "text"
        case .reasoning, .reasoningMark: "reasoning"
        case .toolCall: "tool_call"
        case .audio: "audio"
        case .finished: "finished"
        case .interrupted: "interrupted"
        case .failed: "failed"
        }
    }

    package var isTerminal: Bool {
        switch self {
        case .finished, .interrupted, .failed: true
        default: false
        }
    }
}

/// An event with its id in the job's log.
package struct LoggedEvent: Sendable, Hashable {
    package let id: EventID
    package let event: GenerationEvent

    package init(id: EventID, event: GenerationEvent) {
        self.id = id
        self.event = event
    }

    package var json: [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(96)
        append(to: &out)
        return out
    }

    /// Appends the event's JSON.
    package func append(to out: inout [UInt8]) {
        out.append(UInt8(ascii: "{"))
        out.appendJSONName("id")
        out.append(UInt8(ascii: "\""))
        id.append(to: &out)
        out.append(UInt8(ascii: "\""))
        out.appendJSONMember("type", event.type)
        switch event {
        case .started(let worker, let attempt):
            out.appendJSONMember("worker", worker)
            out.appendJSONMember("attempt", attempt)
        case .resumed(let offset): out.appendJSONMember("text_offset", offset)
        case .restarted: break
        case .upstream(let name, let model):
            out.appendJSONMember("name", name)
            out.appendJSONMember("model", model)
        case .retrieved(let count): out.appendJSONMember("count", count)
        case .text(let text), .reasoning(let text), .transcript(let text): out.appendJSONMember("text", text)
        case .reasoningMark(let mark):
            out.appendJSONMember("text", "")
            switch mark {
            case .signature(let text): out.appendJSONMember("signature", text)
            case .redacted(let text): out.appendJSONMember("redacted", text)
            }
        case .toolCall(let call):
            out.appendJSONMember("index", call.index)
            out.appendJSONMember("call_id", call.callID)
            out.appendJSONMember("name", call.name)
            out.appendJSONMember("arguments", call.arguments)
        case .audio(let audio):
            out.appendJSONMember("index", audio.index)
            out.appendJSONMember("format", audio.format)
            out.appendJSONMember("data", audio.data)
            out.appendJSONMember("last", audio.last)
            if let offset = audio.textOffset { out.appendJSONMember("text_offset", offset) }
            if let end = audio.textEnd { out.appendJSONMember("text_end", end) }
            if let reason = audio.textFinish { out.appendJSONMember("text_finish", reason.rawValue) }
        case .finished(let reason, let usage, let stopSequence):
            out.appendJSONMember("reason", reason.rawValue)
            if let stopSequence { out.appendJSONMember("stop_sequence", stopSequence) }
            append(usage, to: &out)
        case .interrupted(let interruption):
            out.appendJSONMember("reason", interruption.reason)
            out.appendJSONMember("phase", interruption.phase.rawValue)
            append(interruption.usage, to: &out)
            if let billing = interruption.usage.billing { out.appendJSONMember("billing", billing.rawValue) }
            if let latency = interruption.latencyMicroseconds { out.appendJSONMember("latency_us", latency) }
            if let tokens = interruption.deliveredTokens { out.appendJSONMember("delivered_tokens", tokens) }
            if let tokens = interruption.savedTokens { out.appendJSONMember("saved_tokens", tokens) }
        case .failed(let failure, let usage):
            out.appendJSONMember("code", failure.code.rawValue)
            out.appendJSONMember("message", failure.message)
            out.appendJSONMember("retryable", failure.retryable)
            if let status = failure.upstreamStatus { out.appendJSONMember("upstream_status", status) }
            append(usage, to: &out)
        }
        out.append(UInt8(ascii: "}"))
    }

    private func append(_ usage: Usage, to out: inout [UInt8]) {
        out.appendJSONName("usage")
        usage.append(to: &out)
    }
}

extension LoggedEvent {
    /// Approximate size in memory, in bytes; only for bounding buffers.
    package var approximateSize: Int {
        let overhead = 96
        return switch event {
        case .text(let text), .reasoning(let text): overhead + text.utf8.count
        case .reasoningMark(let mark): overhead + mark.text.utf8.count
        case .audio(let audio): overhead + audio.data.utf8.count
        case .toolCall(let call): overhead + call.arguments.utf8.count
        default: overhead
        }
    }
}
