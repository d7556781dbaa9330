import Contract
import JSONCodec
import NIOCore

/// Encodes an answer as the server-sent events of Anthropic's Messages API (docs.anthropic.com, "Streaming messages").
struct MessagesStream: AnswerEncoder {
    private let id: JobID
    private let options: MessagesRequest.Options
    private let promptEstimate: Int
    private var answer: Answer
    private var hasBegun = false
    /// The number of the open or next content block.
    private var index = 0

    /// - Parameter promptEstimate: the prompt's tokens as estimated; the last event states what the upstream counted.
    init(id: JobID, _ options: MessagesRequest.Options, promptEstimate: Int) {
        self.id = id
        self.options = options
        self.promptEstimate = promptEstimate
        answer = Answer(model: options.model, keepsMarks: options.thinking != .none)
    }

    /// A client knows `ping` only after `message_start`.
    var heartbeat: ByteBuffer {
        guard hasBegun else { return ServerSentEvents.comment }
        var out: [UInt8] = []
        Self.append("ping", ["type": "ping"], to: &out)
        return ByteBuffer(bytes: out)
    }

    mutating func take(_ event: GenerationEvent, out: inout [UInt8]) -> StreamStep {
        var changes: [Answer.Change] = []
        answer.take(event) { changes.append($0) }
        for change in changes {
            let step = write(change, to: &out)
            if step != .goOn { return step }
        }
        return .goOn
    }

    private mutating func write(_ change: Answer.Change, to out: inout [UInt8]) -> StreamStep {
        switch change {
        case .opened(.reasoning) where options.thinking != .text, .extended(.reasoning, _) where options.thinking != .text: break
        case .opened(let kind): start(Answer.Part(kind: kind, text: ""), to: &out)
        case .extended(let kind, let text): append(delta: kind, text, to: &out)
        case .marked(let signature):
            if options.thinking == .omitted { start(Answer.Part(kind: .reasoning, text: ""), to: &out) }
            let delta: JSON = ["type": "signature_delta", "signature": .string(signature)]
            Self.append("content_block_delta", ["type": "content_block_delta", "index": .integer(index), "delta": delta], to: &out)
        case .closed(let part, _): if part.isShown(options.thinking) { stop(to: &out) }
        case .inserted(let part):
            start(part, to: &out)
            stop(to: &out)
        case .retracted:
            guard hasBegun else { break }
            let failure = Failure(.workerLost, "the worker was lost and generation restarted after output was sent; retry the request")
            appendError(failure, to: &out)
            return .giveUp
        case .ended(.failed(let failure)):
            appendError(failure, to: &out)
            return .end
        case .ended:
            begin(&out)
            var event = JSONObject([.init(name: "type", value: "message_delta")])
            let stop = answer.stop(at: options.stopSequences)
            event["delta"] = ["stop_reason": .string(stop.reason), "stop_sequence": stop.sequence.map(JSON.string) ?? .null]
            event["usage"] = answer.usage.messagesJSON
            event["sluice"] = answer.interruptionJSON
            Self.append("message_delta", .object(event), to: &out)
            Self.append("message_stop", ["type": "message_stop"], to: &out)
            return .end
        }
        return .goOn
    }

    private mutating func start(_ part: Answer.Part, to out: inout [UInt8]) {
        begin(&out)
        let block = part.messagesJSON(input: [:])
        Self.append("content_block_start", ["type": "content_block_start", "index": .integer(index), "content_block": block], to: &out)
    }

    private mutating func stop(to out: inout [UInt8]) {
        Self.append("content_block_stop", ["type": "content_block_stop", "index": .integer(index)], to: &out)
        index += 1
    }

    /// Appends `message_start` and the first `ping` once.
    private mutating func begin(_ out: inout [UInt8]) {
        guard !hasBegun else { return }
        hasBegun = true
        let message = MessagesCollector.message(
            id: id, model: answer.model, content: [], stop: nil,
            usage: ["input_tokens": .integer(promptEstimate), "output_tokens": 0])
        Self.append("message_start", ["type": "message_start", "message": .object(message)], to: &out)
        Self.append("ping", ["type": "ping"], to: &out)
    }

    /// Appends a `content_block_delta`, the frequent event, without building a tree.
    private func append(delta kind: Answer.Part.Kind, _ text: String, to out: inout [UInt8]) {
        out.append(contentsOf: "event: content_block_delta\ndata: {".utf8)
        out.appendJSONMember("type", "content_block_delta")
        out.appendJSONMember("index", index)
        out.appendJSONName("delta")
        out.append(UInt8(ascii: "{"))
        switch kind {
        case .text:
            out.appendJSONMember("type", "text_delta")
            out.appendJSONMember("text", text)
        case .reasoning:
            out.appendJSONMember("type", "thinking_delta")
            out.appendJSONMember("thinking", text)
        case .call:
            out.appendJSONMember("type", "input_json_delta")
            out.appendJSONMember("partial_json", text)
        }
        out.append(contentsOf: "}}\n\n".utf8)
    }

    private func appendError(_ failure: Failure, to out: inout [UInt8]) {
        let failure = HTTPErrorResponse(failure).renaming(MessagesRequest.fieldNames)
        Self.append("error", APIErrorForm.anthropic.json(of: failure), to: &out)
    }

    private static func append(_ type: String, _ json: JSON, to out: inout [UInt8]) {
        out.append(contentsOf: "event: \(type)\n".utf8)
        ServerSentEvents.appendData(json.bytes, to: &out)
    }
}

/// An answer that is collected and sent as one message object.
struct MessagesCollector: AnswerCollector {
    private let options: MessagesRequest.Options
    private var answer: Answer

    init(_ options: MessagesRequest.Options) {
        self.options = options
        answer = Answer(model: options.model, keepsMarks: options.thinking != .none)
    }

    /// The message's `id` in Anthropic's form.
    static func identifier(of job: JobID) -> String { "msg_" + job.rawValue }

    mutating func take(_ event: GenerationEvent) throws(HTTPErrorResponse) -> Bool {
        answer.take(event)
        if case .failed(let failure)? = answer.ending { throw HTTPErrorResponse(failure) }
        return answer.ending != nil
    }

    func body(id: JobID, created: Int) -> [UInt8] {
        let content = answer.parts.filter { $0.isShown(options.thinking) }.map { part in
            var shown = part
            if part.kind == .reasoning, options.thinking == .omitted { shown.text = "" }
            return shown.messagesJSON(input: part.arguments)
        }
        var message = Self.message(
            id: id, model: answer.model, content: content, stop: answer.stop(at: options.stopSequences), usage: answer.usage.messagesJSON)
        message["sluice"] = answer.interruptionJSON
        return JSON.object(message).bytes
    }

    fileprivate static func message(
        id: JobID, model: String, content: [JSON], stop: (reason: String, sequence: String?)?, usage: JSON
    ) -> JSONObject {
        var message = JSONObject([.init(name: "id", value: .string(identifier(of: id)))])
        message["type"] = "message"
        message["role"] = "assistant"
        message["model"] = .string(model)
        message["content"] = .array(content)
        message["stop_reason"] = stop.map { .string($0.reason) } ?? .null
        message["stop_sequence"] = stop?.sequence.map(JSON.string) ?? .null
        message["usage"] = usage
        return message
    }
}

extension Answer {
    /// Why the answer ended. Some upstreams do not tell a stop sequence from a natural end.
    /// - Parameter sequences: the requested stop sequences.
    fileprivate func stop(at sequences: [String]) -> (reason: String, sequence: String?) {
        switch ending {
        case .finished(.length): return ("max_tokens", nil)
        case .finished(.toolCalls): return ("tool_use", nil)
        case .finished(.contentFilter): return ("refusal", nil)
        case .finished(.stop) where hasCalls: return ("tool_use", nil)
        case .finished(.stop):
            guard let stopSequence, sequences.contains(stopSequence) else { return ("end_turn", nil) }
            return ("stop_sequence", stopSequence)
        default: return ("end_turn", nil)
        }
    }

    /// How the job was interrupted; nil when it was not.
    fileprivate var interruptionJSON: JSON? {
        guard case .interrupted(let interruption)? = ending else { return nil }
        return interruption.answerJSON
    }
}

extension Answer.Part {
    /// The part as a content block.
    fileprivate func messagesJSON(input: JSON) -> JSON {
        switch kind {
        case .text: ["type": "text", "text": .string(text)]
        case .reasoning:
            switch mark {
            case .redacted(let data)?: ["type": "redacted_thinking", "data": .string(data)]
            case .signature(let signature)?: ["type": "thinking", "thinking": .string(text), "signature": .string(signature)]
            case nil: ["type": "thinking", "thinking": .string(text), "signature": ""]
            }
        case .call(let id, let name): ["type": "tool_use", "id": .string(id), "name": .string(name), "input": input]
        }
    }

    /// Whether the answer contains the part.
    fileprivate func isShown(_ thinking: MessagesRequest.ThinkingDisplay) -> Bool {
        guard kind == .reasoning else { return true }
        return thinking == .text || thinking == .omitted && mark != nil
    }

    /// The arguments of a call. Ones that are no object are an error of the model and wrapped instead of dropped.
    fileprivate var arguments: JSON {
        guard let json = try? JSON(parsing: text, rules: .lenient), json.object != nil else { return ["arguments": .string(text)] }
        return json
    }
}

extension Usage {
    /// The usage in Anthropic's form, whose `input_tokens` do not include those read from a cache.
    fileprivate var messagesJSON: JSON {
        var usage = JSONObject()
        usage["input_tokens"] = .integer(max(0, promptTokens - (cachedTokens ?? 0)))
        usage["output_tokens"] = .integer(completionTokens)
        usage["cache_read_input_tokens"] = cachedTokens.map(JSON.integer)
        return .object(usage)
    }
}
