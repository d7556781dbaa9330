import Contract
import JSONCodec

/// Encodes an answer as the server-sent events of the Responses API. Their numbers depend only on the job's events, so that every gateway
/// sends the same events for the same log.
struct ResponsesStream: AnswerEncoder {
    private let object: ResponseObject
    /// The number of the last event that the client has; nil for none.
    private let after: Int?
    private var answer: Answer
    /// The number of the next event.
    private var sequence = 0
    private var hasBegun = false
    private var hasStarted = false
    /// The number of the open or next output item.
    private var index = 0

    init(_ object: ResponseObject, after: Int? = nil) {
        self.object = object
        self.after = after
        answer = Answer(model: object.model, keepsMarks: true)
    }

    mutating func begin(out: inout [UInt8]) {
        guard !hasBegun else { return }
        hasBegun = true
        let status = object.isBackground ? ResponseObject.Status.queued : .inProgress
        append("response.created", response: object.json(nil, status: status), to: &out)
        if object.isBackground { append("response.queued", response: object.json(nil, status: .queued), to: &out) }
    }

    mutating func take(_ event: GenerationEvent, out: inout [UInt8]) -> StreamStep {
        begin(out: &out)
        if !hasStarted {
            hasStarted = true
            append("response.in_progress", response: object.json(nil, status: .inProgress), to: &out)
        }
        var changes: [Answer.Change] = []
        answer.take(event) { changes.append($0) }
        for change in changes { write(change, to: &out) }
        return answer.ending == nil ? .goOn : .end
    }

    private mutating func write(_ change: Answer.Change, to out: inout [UInt8]) {
        switch change {
        case .opened(let kind):
            let part = Answer.Part(kind: kind, text: "")
            appendItem("added", part, status: .inProgress, to: &out)
            appendPart("added", part, to: &out)
        case .extended(let kind, let text): append(delta: kind, text, to: &out)
        case .closed(let part, let isWhole):
            appendText(part, to: &out)
            appendPart("done", part, to: &out)
            appendItem("done", part, status: isWhole ? .completed : .incomplete, to: &out)
            index += 1
        case .inserted(let part):
            appendItem("added", Answer.Part(kind: part.kind, text: ""), status: .inProgress, to: &out)
            appendItem("done", part, status: .completed, to: &out)
            index += 1
        // The items so far stay with the client, but the final response does not contain them. A mark is part of the item that closes next.
        case .retracted, .marked: break
        case .ended(let ending):
            let status = ResponseObject.status(of: ending)
            append("response.\(status.rawValue)", response: object.json(answer, status: status), to: &out)
        }
    }

    /// Appends the start or the end of an item.
    private mutating func appendItem(_ moment: String, _ part: Answer.Part, status: ResponseObject.Status, to out: inout [UInt8]) {
        let item = object.item(part, at: index, status: status)
        append("response.output_item.\(moment)", [("output_index", .integer(index)), ("item", item)], to: &out)
    }

    /// Appends the start or the end of the content part of an item; a call has none.
    private mutating func appendPart(_ moment: String, _ part: Answer.Part, to out: inout [UInt8]) {
        if case .call = part.kind { return }
        let isSummary = part.kind == .reasoning && object.summarizes
        let type = "response.\(isSummary ? "reasoning_summary_part" : "content_part").\(moment)"
        append(type, place(part.kind) + [("part", object.content(part))], to: &out)
    }

    /// Appends the end of an item's text.
    private mutating func appendText(_ part: Answer.Part, to out: inout [UInt8]) {
        switch part.kind {
        case .text:
            append("response.output_text.done", place(part.kind) + [("text", .string(part.text)), ("logprobs", [])], to: &out)
        case .reasoning:
            let type = object.summarizes ? "response.reasoning_summary_text.done" : "response.reasoning_text.done"
            append(type, place(part.kind) + [("text", .string(part.text))], to: &out)
        case .call(_, let name):
            append(
                "response.function_call_arguments.done",
                place(part.kind) + [("name", .string(name)), ("arguments", .string(part.text))], to: &out)
        }
    }

    /// The members that say what an event belongs to.
    private func place(_ kind: Answer.Part.Kind) -> [(String, JSON)] {
        var members: [(String, JSON)] = [("item_id", .string(object.itemID(kind, at: index))), ("output_index", .integer(index))]
        switch kind {
        case .text: members.append(("content_index", 0))
        case .reasoning: members.append((object.summarizes ? "summary_index" : "content_index", 0))
        case .call: break
        }
        return members
    }

    /// Appends a delta, the frequent event, without building a tree.
    private mutating func append(delta kind: Answer.Part.Kind, _ text: String, to out: inout [UInt8]) {
        defer { sequence += 1 }
        guard isNew else { return }
        let type =
            switch kind {
            case .text: "response.output_text.delta"
            case .reasoning: object.summarizes ? "response.reasoning_summary_text.delta" : "response.reasoning_text.delta"
            case .call: "response.function_call_arguments.delta"
            }
        begin(type, to: &out)
        out.appendJSONMember("item_id", object.itemID(kind, at: index))
        out.appendJSONMember("output_index", index)
        switch kind {
        case .text:
            out.appendJSONMember("content_index", 0)
            out.appendJSONName("logprobs")
            out.append(contentsOf: "[]".utf8)
        case .reasoning:
            if object.summarizes { out.appendJSONMember("summary_index", 0) } else { out.appendJSONMember("content_index", 0) }
        case .call: break
        }
        out.appendJSONMember("delta", text)
        out.append(contentsOf: "}\n\n".utf8)
    }

    private mutating func append(_ type: String, response: JSON, to out: inout [UInt8]) {
        append(type, [("response", response)], to: &out)
    }

    /// Appends an event, unless the client has it; counts it in any case.
    private mutating func append(_ type: String, _ members: [(String, JSON)], to out: inout [UInt8]) {
        defer { sequence += 1 }
        guard isNew else { return }
        begin(type, to: &out)
        for (name, value) in members {
            out.append(UInt8(ascii: ","))
            out.appendJSONString(name)
            out.append(UInt8(ascii: ":"))
            value.append(to: &out)
        }
        out.append(contentsOf: "}\n\n".utf8)
    }

    /// Whether the client lacks the next event.
    private var isNew: Bool { after.map { sequence > $0 } ?? true }

    private func begin(_ type: String, to out: inout [UInt8]) {
        out.append(contentsOf: "event: \(type)\ndata: {".utf8)
        out.appendJSONMember("type", type)
        out.appendJSONMember("sequence_number", sequence)
    }
}

/// An answer that is collected and sent as one response object.
struct ResponsesCollector: AnswerCollector {
    private let object: ResponseObject
    private var answer: Answer

    init(_ object: ResponseObject) {
        self.object = object
        answer = Answer(model: object.model, keepsMarks: true)
    }

    mutating func take(_ event: GenerationEvent) throws(HTTPErrorResponse) -> Bool {
        answer.take(event)
        if case .failed(let failure)? = answer.ending { throw HTTPErrorResponse(failure) }
        return answer.ending != nil
    }

    func body(id: JobID, created: Int) -> [UInt8] { object.json(answer, status: .inProgress).bytes }
}
