import Contract
import JSONCodec
import Support

/// Encodes a job's events as OpenAI `chat.completion.chunk` objects in server-sent events. A state machine without I/O.
struct ChatCompletionStream: AnswerEncoder {
    private let id: JobID
    private let created: Int
    private let includesUsage: Bool
    private let interruptedReason: String
    private var model: String
    /// Whether a chunk with the role was written; the first chunk carries it.
    private var hasRole = false
    /// Bytes of answer text written, in UTF-8.
    private var written = 0
    /// Whether a tool call was written.
    private var hasCalled = false

    /// - Parameters:
    ///   - created: seconds since 1970.
    ///   - interruptedReason: the `finish_reason` of an interrupted completion.
    init(id: JobID, created: Int, model: String, includesUsage: Bool, interruptedReason: String = "stop") {
        self.interruptedReason = interruptedReason
        self.id = id
        self.created = created
        self.model = model
        self.includesUsage = includesUsage
    }

    /// Appends the chunks of an event to `out`. After `.end` or `.giveUp` no further event may be passed.
    mutating func take(_ event: GenerationEvent, out: inout [UInt8]) -> StreamStep {
        switch event {
        case .started, .transcript, .retrieved, .audio, .reasoningMark: break
        // Live output can be ahead of the log (`RelayMachine.resumed`): resuming is possible only if the client has no more than the log.
        case .resumed(let offset) where written <= offset && !hasCalled: break
        case .upstream(_, let model): self.model = model.isEmpty ? self.model : model
        case .restarted, .resumed:
            guard hasRole else { break }
            appendError(
                HTTPErrorResponse(
                    Failure(.workerLost, "the worker was lost and generation restarted after output was sent; retry the request")),
                to: &out)
            return .giveUp
        case .text(let text):
            written += text.utf8.count
            append(to: &out) { $0.appendJSONMember("content", text) }
        case .reasoning(let text): append(to: &out) { $0.appendJSONMember("reasoning_content", text) }
        case .toolCall(let call):
            hasCalled = true
            append(to: &out) { out in
                out.appendJSONName("tool_calls")
                out.append(UInt8(ascii: "["))
                call.append(to: &out, indexed: true)
                out.append(UInt8(ascii: "]"))
            }
        case .finished(let reason, let usage, _):
            close(reason: reason.rawValue, usage: usage, out: &out)
            return .end
        case .interrupted(let interruption):
            close(reason: interruptedReason, usage: interruption.usage, interruption, out: &out)
            return .end
        case .failed(let failure, _):
            appendError(HTTPErrorResponse(failure), to: &out)
            return .end
        }
        return .goOn
    }

    /// Appends the final chunk, the usage chunk if requested, and `[DONE]`.
    private mutating func close(reason: String, usage: Usage, _ interruption: Interruption? = nil, out: inout [UInt8]) {
        if !hasRole { append(to: &out) { $0.appendJSONMember("content", "") } }
        append(to: &out, finishReason: reason, interruption) { _ in }
        if includesUsage {
            chunk(to: &out, choices: { $0.append(contentsOf: "[]".utf8) }, usage: usage)
        }
        out.append(contentsOf: "data: [DONE]\n\n".utf8)
    }

    /// Appends a chunk with one choice. The first chunk carries the role.
    private mutating func append(
        to out: inout [UInt8], finishReason: String? = nil, _ interruption: Interruption? = nil, delta: (inout [UInt8]) -> Void
    ) {
        let isFirst = !hasRole
        hasRole = true
        chunk(to: &out, interruption) { out in
            out.append(contentsOf: #"[{"index":0,"delta":{"#.utf8)
            if isFirst { out.appendJSONMember("role", "assistant") }
            delta(&out)
            out.append(contentsOf: #"},"logprobs":null,"finish_reason":"#.utf8)
            if let finishReason { out.appendJSONString(finishReason) } else { out.append(contentsOf: "null".utf8) }
            out.append(contentsOf: "}]".utf8)
        }
    }

    /// Appends the members that all chunks have. With `include_usage`, `usage` is null in all chunks except the last one.
    private func chunk(
        to out: inout [UInt8], _ interruption: Interruption? = nil, choices: (inout [UInt8]) -> Void, usage: Usage? = nil
    ) {
        out.append(contentsOf: "data: {".utf8)
        out.appendJSONMember("id", ChatCompletion.identifier(of: id))
        out.appendJSONMember("object", "chat.completion.chunk")
        out.appendJSONMember("created", created)
        out.appendJSONMember("model", model)
        out.appendJSONName("choices")
        choices(&out)
        if includesUsage {
            out.appendJSONName("usage")
            if let usage { usage.completionJSON.append(to: &out) } else { out.append(contentsOf: "null".utf8) }
        }
        if let interruption {
            out.appendJSONName("sluice")
            interruption.answerJSON.append(to: &out)
        }
        out.append(contentsOf: "}\n\n".utf8)
    }

    /// Appends an error chunk. No `[DONE]` follows it, so that a client cannot mistake a truncated answer for a complete one.
    private func appendError(_ failure: HTTPErrorResponse, to out: inout [UInt8]) {
        ServerSentEvents.appendData(failure.json.bytes, to: &out)
    }
}

/// A completion that is collected and sent as one JSON object. A state machine without I/O.
struct ChatCompletion: AnswerCollector {
    /// The completion's `id` in OpenAI's form.
    static func identifier(of job: JobID) -> String { "chatcmpl-" + job.rawValue }

    private var model: String
    private var text = ""
    private var reasoning = ""
    private var calls: [ToolCall] = []
    /// Set by the terminal event.
    private var ending: (reason: String, usage: Usage)?
    private var interruption: Interruption?
    private let interruptedReason: String

    /// - Parameter interruptedReason: the `finish_reason` of an interrupted completion.
    init(model: String, interruptedReason: String = "stop") {
        self.model = model
        self.interruptedReason = interruptedReason
    }

    /// Adds an event to the completion.
    /// - Returns: whether the event was the terminal one.
    /// - Throws: the HTTP form of the job's failure.
    mutating func take(_ event: GenerationEvent) throws(HTTPErrorResponse) -> Bool {
        switch event {
        case .started, .transcript, .retrieved, .audio, .reasoningMark: return false
        case .resumed(let offset):
            // Live output can be ahead of the log (`RelayMachine.resumed`): discard what the new worker will generate again.
            text = String(decoding: text.utf8.prefix(offset), as: UTF8.self)
            calls = []
        case .upstream(_, let model): self.model = model.isEmpty ? self.model : model
        case .restarted:
            text = ""
            reasoning = ""
            calls = []
        case .text(let part): text += part
        case .reasoning(let part): reasoning += part
        case .toolCall(let call): calls.append(call)
        case .finished(let reason, let usage, _): ending = (reason.rawValue, usage)
        case .interrupted(let interruption):
            self.interruption = interruption
            ending = (interruptedReason, interruption.usage)
        case .failed(let failure, _): throw HTTPErrorResponse(failure)
        }
        return ending != nil
    }

    /// The response body.
    /// - Parameter created: seconds since 1970.
    func body(id: JobID, created: Int) -> [UInt8] {
        let ending = ending ?? (interruptedReason, .none)
        var message = JSONObject([.init(name: "role", value: "assistant")])
        message["content"] = text.isEmpty && !calls.isEmpty ? .null : .string(text)
        if !reasoning.isEmpty { message["reasoning_content"] = .string(reasoning) }
        if !calls.isEmpty { message["tool_calls"] = .array(calls.map(\.json)) }
        let choice: JSON = ["index": 0, "message": .object(message), "logprobs": .null, "finish_reason": .string(ending.reason)]
        let completion: JSON = [
            "id": .string(Self.identifier(of: id)), "object": "chat.completion", "created": .integer(created), "model": .string(model),
            "choices": [choice], "usage": ending.usage.completionJSON,
        ]
        guard let interruption, var members = completion.object else { return completion.bytes }
        members["sluice"] = interruption.answerJSON
        return JSON.object(members).bytes
    }
}

extension Usage {
    /// The usage in OpenAI's form, with the details that the upstream reported.
    fileprivate var completionJSON: JSON {
        var members = JSONObject()
        members["prompt_tokens"] = .integer(promptTokens)
        members["completion_tokens"] = .integer(completionTokens)
        members["total_tokens"] = .integer(promptTokens.saturatingAdding(completionTokens))
        if let cachedTokens { members["prompt_tokens_details"] = ["cached_tokens": .integer(cachedTokens)] }
        if let reasoningTokens { members["completion_tokens_details"] = ["reasoning_tokens": .integer(reasoningTokens)] }
        return .object(members)
    }
}

extension ToolCall {
    fileprivate var json: JSON {
        ["id": .string(callID), "type": "function", "function": ["name": .string(name), "arguments": .string(arguments)]]
    }

    fileprivate func append(to out: inout [UInt8], indexed: Bool) {
        var members = JSONObject([.init(name: "index", value: .integer(index))])
        for member in json.object?.members ?? [] { members[member.name] = member.value }
        JSON.object(members).append(to: &out)
    }
}
