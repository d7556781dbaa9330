import JSONCodec
import Support

extension LoggedEvent {
    /// Parses the JSON of one event.
    /// - Throws: `JSONError` for invalid JSON or an object that is not an event of the contract.
    package init(parsing bytes: [UInt8]) throws(JSONError) {
        var scanner = JSONScanner(bytes.span)
        try self.init(scanning: &scanner)
        try scanner.finish()
    }

    /// Parses a message of an output channel: a JSON array of events. Events of unknown types, written by a newer version, are skipped.
    package static func array(parsing bytes: Span<UInt8>) throws(JSONError) -> [LoggedEvent] {
        var events: [LoggedEvent] = []
        var scanner = JSONScanner(bytes)
        try scanner.array { (scanner) throws(JSONError) in
            let start = scanner.offset
            let fields = try Fields(scanning: &scanner)
            guard let id = fields.id, !fields.type.isEmpty else { throw JSONError("not an event of the contract", at: start) }
            if let event = Self.event(fields) { events.append(LoggedEvent(id: id, event: event)) }
        }
        try scanner.finish()
        return events
    }

    /// All fields of all kinds of events, in any order; `type` decides which ones are used. Numbers are bounded and names cut, because events
    /// may have been written by other programs.
    private struct Fields {
        var id: EventID?
        var type = ""
        var worker = "", name = "", model = "", text = "", callID = "", arguments = "", format = "", data = "", reason = "", phase = ""
        var code = "", message = ""
        var attempt = 0, index = 0, count = 0
        var textOffset: Int?, textEnd: Int?, upstreamStatus: Int?, latency: Int?, delivered: Int?, saved: Int?
        var textFinish: String?, signature: String?, redacted: String?, stopSequence: String?
        var last = false, retryable = false
        var usage = Usage.none

        /// Unknown fields are skipped.
        init(scanning scanner: inout JSONScanner) throws(JSONError) {
            try scanner.object { (key, scanner) throws(JSONError) in
                switch key {
                case "id": id = EventID(try scanner.string())
                case "type": type = try scanner.string()
                case "text": text = try scanner.string()
                case "worker": worker = try scanner.string()
                case "attempt": attempt = try scanner.count()
                case "text_offset": textOffset = try scanner.optionalCount()
                case "text_end": textEnd = try scanner.optionalCount()
                case "name": name = try scanner.string()
                case "model": model = try scanner.string()
                case "count": count = try scanner.count()
                case "index": index = try scanner.count()
                case "call_id": callID = try scanner.string()
                case "arguments": arguments = try scanner.string()
                case "format": format = try scanner.string()
                case "data": data = try scanner.string()
                case "last": last = try scanner.bool()
                case "reason": reason = try scanner.string()
                case "phase": phase = try scanner.string()
                case "text_finish": textFinish = try scanner.optionalString()
                case "signature": signature = try scanner.optionalString()
                case "redacted": redacted = try scanner.optionalString()
                case "stop_sequence": stopSequence = try scanner.optionalString()
                case "delivered_tokens": delivered = try scanner.optionalCount()
                case "saved_tokens": saved = try scanner.optionalCount()
                case "latency_us": latency = try scanner.optionalCount()
                case "code": code = try scanner.string()
                case "message": message = try scanner.string()
                case "retryable": retryable = try scanner.bool()
                case "upstream_status": upstreamStatus = try scanner.optionalCount()
                case "usage": usage = try Usage(scanning: &scanner)
                default: try scanner.skip()
                }
            }
        }
    }

    /// Reads one event; unknown fields are skipped.
    package init(scanning scanner: inout JSONScanner) throws(JSONError) {
        let start = scanner.offset
        let fields = try Fields(scanning: &scanner)
        guard let id = fields.id, let event = Self.event(fields) else { throw JSONError("not an event of the contract", at: start) }
        self.init(id: id, event: event)
    }

    /// Builds the event from its fields; nil for an unknown type. A terminal event ends the job for every reader, also one whose code, phase
    /// or reason was added by a newer version: such values are replaced by the most general ones.
    private static func event(_ fields: Fields) -> GenerationEvent? {
        switch fields.type {
        case "text": .text(fields.text)
        case "reasoning":
            if let signature = fields.signature {
                .reasoningMark(.signature(signature))
            } else if let redacted = fields.redacted {
                .reasoningMark(.redacted(redacted))
            } else {
                .reasoning(fields.text)
            }
        case "transcript": .transcript(fields.text)
        case "retrieved": .retrieved(count: fields.count)
        case "started": .started(worker: fields.worker.cut(toBytes: NameLimit.node), attempt: fields.attempt)
        case "resumed": .resumed(textOffset: fields.textOffset ?? 0)
        case "restarted": .restarted
        case "upstream": .upstream(name: fields.name.cut(toBytes: NameLimit.model), model: fields.model.cut(toBytes: NameLimit.model))
        case "tool_call":
            .toolCall(ToolCall(index: fields.index, callID: fields.callID, name: fields.name, arguments: fields.arguments))
        case "audio":
            .audio(
                Audio(
                    index: fields.index, format: fields.format, data: fields.data, last: fields.last, textOffset: fields.textOffset,
                    textEnd: fields.textEnd, textFinish: fields.textFinish.flatMap(FinishReason.init)))
        case "finished": .finished(FinishReason(rawValue: fields.reason) ?? .stop, fields.usage, stopSequence: fields.stopSequence)
        case "interrupted":
            .interrupted(
                Interruption(
                    reason: fields.reason.cut(toBytes: NameLimit.reason), phase: Phase(rawValue: fields.phase) ?? .claimed,
                    usage: fields.usage, latencyMicroseconds: fields.latency, deliveredTokens: fields.delivered,
                    savedTokens: fields.saved))
        case "failed":
            .failed(
                Failure(
                    FailureCode(rawValue: fields.code) ?? .internal, fields.message, retryable: fields.retryable,
                    upstreamStatus: fields.upstreamStatus), fields.usage)
        default: nil
        }
    }
}
