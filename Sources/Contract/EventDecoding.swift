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

    /// Parses a message of an output channel: a JSON array of events.
    package static func array(parsing bytes: Span<UInt8>) throws(JSONError) -> [LoggedEvent] {
        var events: [LoggedEvent] = []
        var scanner = JSONScanner(bytes)
        try scanner.array { (scanner) throws(JSONError) in events.append(try LoggedEvent(scanning: &scanner)) }
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
        var attempt = 0, index = 0
        var textOffset: Int?, textEnd: Int?, upstreamStatus: Int?, latency: Int?, delivered: Int?, saved: Int?
        var textFinish: String?
        var last = false, retryable = false
        var usage = Usage.none
    }

    /// Reads one event; unknown fields are skipped.
    package init(scanning scanner: inout JSONScanner) throws(JSONError) {
        var fields = Fields()
        let start = scanner.offset
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "id": fields.id = EventID(try scanner.string())
            case "type": fields.type = try scanner.string()
            case "text": fields.text = try scanner.string()
            case "worker": fields.worker = try scanner.string()
            case "attempt": fields.attempt = try scanner.count()
            case "text_offset": fields.textOffset = try scanner.optionalCount()
            case "text_end": fields.textEnd = try scanner.optionalCount()
            case "name": fields.name = try scanner.string()
            case "model": fields.model = try scanner.string()
            case "index": fields.index = try scanner.count()
            case "call_id": fields.callID = try scanner.string()
            case "arguments": fields.arguments = try scanner.string()
            case "format": fields.format = try scanner.string()
            case "data": fields.data = try scanner.string()
            case "last": fields.last = try scanner.bool()
            case "reason": fields.reason = try scanner.string()
            case "phase": fields.phase = try scanner.string()
            case "text_finish": fields.textFinish = try scanner.optionalString()
            case "delivered_tokens": fields.delivered = try scanner.optionalCount()
            case "saved_tokens": fields.saved = try scanner.optionalCount()
            case "latency_us": fields.latency = try scanner.optionalCount()
            case "code": fields.code = try scanner.string()
            case "message": fields.message = try scanner.string()
            case "retryable": fields.retryable = try scanner.bool()
            case "upstream_status": fields.upstreamStatus = try scanner.optionalCount()
            case "usage": fields.usage = try Usage(scanning: &scanner)
            default: try scanner.skip()
            }
        }
        guard let id = fields.id, let event = Self.event(fields) else { throw JSONError("not an event of the contract", at: start) }
        self.init(id: id, event: event)
    }

    /// Builds the event from its fields; nil for an unknown type, reason, phase or code.
    private static func event(_ fields: Fields) -> GenerationEvent? {
        switch fields.type {
        case "text": .text(fields.text)
        case "reasoning": .reasoning(fields.text)
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
        case "finished": FinishReason(rawValue: fields.reason).map { .finished($0, fields.usage) }
        case "interrupted":
            Phase(rawValue: fields.phase).map {
                .interrupted(
                    Interruption(
                        reason: fields.reason.cut(toBytes: NameLimit.reason), phase: $0, usage: fields.usage,
                        latencyMicroseconds: fields.latency,
                        deliveredTokens: fields.delivered, savedTokens: fields.saved))
            }
        case "failed":
            FailureCode(rawValue: fields.code).map {
                .failed(
                    Failure($0, fields.message, retryable: fields.retryable, upstreamStatus: fields.upstreamStatus), fields.usage)
            }
        default: nil
        }
    }
}
