import Contract
import JSONCodec
import Support

/// Builds the response objects of one response: what its request said, and the answer so far.
struct ResponseObject: Sendable, Equatable {
    enum Status: String, Sendable, Equatable { case queued, completed, incomplete, cancelled, failed, inProgress = "in_progress" }

    let id: JobID
    /// Seconds since 1970.
    let created: Int
    let isBackground: Bool
    /// Whether reasoning is reported as a summary.
    let summarizes: Bool
    /// The fields of the request that the response repeats.
    let echo: JSONObject

    /// The response's `id` in OpenAI's form.
    static func identifier(of job: JobID) -> String { "resp_" + job.rawValue }

    /// The job of a response's id; nil for an id of another form.
    static func job(of identifier: String) -> JobID? {
        identifier.hasPrefix("resp_") ? JobID(String(identifier.dropFirst("resp_".count))) : nil
    }

    /// A copy for the job of an earlier request.
    func with(id: JobID) -> ResponseObject {
        ResponseObject(id: id, created: created, isBackground: isBackground, summarizes: summarizes, echo: echo)
    }

    /// The requested model.
    var model: String { echo["model"]?.string ?? "" }

    /// The status of an ended answer.
    static func status(of ending: Answer.Ending) -> Status {
        switch ending {
        case .finished(.length), .finished(.contentFilter): .incomplete
        case .finished: .completed
        case .interrupted: .cancelled
        case .failed: .failed
        }
    }

    /// The response object.
    /// - Parameters:
    ///   - answer: nil before the answer began.
    ///   - status: the status of an answer that has not ended.
    func json(_ answer: Answer?, status: Status) -> JSON {
        let status = answer?.ending.map(Self.status) ?? status
        var object = JSONObject([.init(name: "id", value: .string(Self.identifier(of: id)))])
        object["object"] = "response"
        object["created_at"] = .integer(created)
        object["status"] = .string(status.rawValue)
        object["error"] = .null
        object["incomplete_details"] = .null
        for member in echo.members { object[member.name] = member.value }
        object["output"] = []
        object["usage"] = .null
        guard let answer, let ending = answer.ending else { return .object(object) }
        object["model"] = .string(answer.model)
        object["usage"] = answer.usage.responsesJSON
        object["output"] = .array(output(answer))
        switch ending {
        case .finished(.length): object["incomplete_details"] = ["reason": "max_output_tokens"]
        case .finished(.contentFilter): object["incomplete_details"] = ["reason": "content_filter"]
        case .finished: break
        case .failed(let failure): object["error"] = Self.error(of: failure)
        case .interrupted(let interruption): object["sluice"] = interruption.answerJSON
        }
        return .object(object)
    }

    /// The output items of an answer.
    func output(_ answer: Answer) -> [JSON] {
        answer.parts.enumerated().map { index, part in
            let isWhole = answer.isWhole || index < answer.parts.count - 1
            return item(part, at: answer.firstIndex + index, status: isWhole ? .completed : .incomplete)
        }
    }

    /// The error object of a failed response, with the closest of OpenAI's codes.
    static func error(of failure: Failure) -> JSON {
        let code =
            switch failure.code {
            case .rateLimited, .quotaExhausted: "rate_limit_exceeded"
            case .invalidRequest, .unsupportedParameter, .contentFiltered, .modelNotFound: "invalid_prompt"
            default: "server_error"
            }
        return ["code": .string(code), "message": .string(HTTPErrorResponse(failure).renaming(ResponsesRequest.fieldNames).message)]
    }

    /// The id of an item, which depends only on its place in the output.
    func itemID(_ kind: Answer.Part.Kind, at index: Int) -> String {
        switch kind {
        case .reasoning: "rs_\(id.rawValue)_\(index)"
        case .text: "msg_\(id.rawValue)_\(index)"
        case .call: "fc_\(id.rawValue)_\(index)"
        }
    }

    /// An output item.
    func item(_ part: Answer.Part, at index: Int, status: Status) -> JSON {
        let itemID = JSON.string(itemID(part.kind, at: index))
        let status = JSON.string(status.rawValue)
        // The start of an item is reported without content.
        let isStart = status == "in_progress"
        switch part.kind {
        case .text:
            return [
                "id": itemID, "type": "message", "status": status, "role": "assistant",
                "content": isStart ? [] : [content(part)],
            ]
        case .reasoning:
            let parts: JSON = isStart || part.isRedacted ? [] : [content(part)]
            var item = JSONObject([.init(name: "id", value: itemID), .init(name: "type", value: "reasoning")])
            item["status"] = status
            item["summary"] = summarizes ? parts : []
            item["content"] = summarizes ? nil : parts
            item["encrypted_content"] = EncryptedReasoning.content(of: part).map(JSON.string)
            return .object(item)
        case .call(let callID, let name):
            return [
                "id": itemID, "type": "function_call", "status": status, "call_id": .string(callID), "name": .string(name),
                "arguments": .string(part.text),
            ]
        }
    }

    /// The content part of a message or of reasoning.
    func content(_ part: Answer.Part) -> JSON {
        switch part.kind {
        case .reasoning: ["type": summarizes ? "summary_text" : "reasoning_text", "text": .string(part.text)]
        default: ["type": "output_text", "text": .string(part.text), "annotations": [], "logprobs": []]
        }
    }
}

extension Usage {
    fileprivate var responsesJSON: JSON {
        [
            "input_tokens": .integer(promptTokens),
            "input_tokens_details": ["cached_tokens": .integer(cachedTokens ?? 0), "cache_write_tokens": 0],
            "output_tokens": .integer(completionTokens), "output_tokens_details": ["reasoning_tokens": .integer(reasoningTokens ?? 0)],
            "total_tokens": .integer(promptTokens.saturatingAdding(completionTokens)),
        ]
    }
}
