import Contract
import JSONCodec
import TestSupport
import Testing

@testable import Gateway
@testable import Upstream

/// A random answer of a model.
struct RoundTripReply: Equatable {
    enum Part: Equatable {
        case thought(String, signature: String)
        case redacted(String)
        case said(String)
        case call(id: String, name: String, arguments: JSON)
    }

    var parts: [Part] = []
    var reason = FinishReason.stop
    var stopSequence: String?
    var promptTokens = 0
    var completionTokens = 0

    static let stopSequences = ["END", "\n\n"]

    /// An answer with what a provider can express. Calls are last: the worker reports them at the end.
    init(_ kind: UpstreamConfiguration.Kind, _ random: inout SplitMix64) {
        func number(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &random) }
        func words() -> String { "x" + (0..<number(0...3)).map { _ in ["a ", "你", "😀", "\"", "\n"][number(0...4)] }.joined() }
        if kind == .anthropic {
            for block in 0..<number(0...4) {
                switch number(0...2) {
                case 0: parts.append(.thought(number(0...3) == 0 ? "" : words(), signature: "sig\(block)"))
                case 1: parts.append(.redacted("data\(block)"))
                default: if case .said? = parts.last {} else { parts.append(.said(words())) }
                }
            }
        } else {
            if number(0...1) == 0 { parts.append(.thought(words(), signature: "")) }
            if number(0...3) > 0 { parts.append(.said(words())) }
        }
        for call in 0..<number(0...2) {
            let id = kind == .ollama ? "call_\(call)" : "id_\(call)"
            parts.append(.call(id: id, name: "f\(call)", arguments: ["a": .string(words())]))
        }
        if parts.contains(where: { if case .call = $0 { true } else { false } }) {
            reason = .toolCalls
        } else {
            if parts.isEmpty { parts.append(.said(words())) }
            reason = [FinishReason.stop, .stop, .length, kind == .openai || kind == .anthropic ? .contentFilter : .stop][number(0...3)]
            if reason == .stop, kind == .openai || kind == .anthropic, number(0...1) == 0 {
                stopSequence = Self.stopSequences[number(0...1)]
            }
        }
        (promptTokens, completionTokens) = (number(1...99), number(1...99))
    }

    // MARK: as a provider's stream

    func stream(_ kind: UpstreamConfiguration.Kind) -> String {
        switch kind {
        case .openai: openAIStream
        case .dashscope: dashScopeStream
        case .anthropic: anthropicStream
        case .ollama: ollamaStream
        }
    }

    private static func events(_ frames: [JSON]) -> String { frames.map { "data: \($0.text)\n\n" }.joined() }

    /// The parts as OpenAI's deltas.
    private func deltas(reasoning: String, arguments: (JSON) -> JSON) -> [JSON] {
        var calls = 0
        return parts.map { part in
            switch part {
            case .thought(let text, _): return .object(JSONObject([.init(name: reasoning, value: .string(text))]))
            case .redacted: return [:]
            case .said(let text): return ["content": .string(text)]
            case .call(let id, let name, let input):
                calls += 1
                return [
                    "tool_calls": [
                        [
                            "index": .integer(calls - 1), "id": .string(id), "type": "function",
                            "function": ["name": .string(name), "arguments": arguments(input)],
                        ]
                    ]
                ]
            }
        }
    }

    private var openAIStream: String {
        var frames: [JSON] = deltas(reasoning: "reasoning_content") { .string($0.text) }.map { ["choices": [["index": 0, "delta": $0]]] }
        var choice = JSONObject([.init(name: "delta", value: [:]), .init(name: "finish_reason", value: .string(reason.rawValue))])
        choice["stop_reason"] = stopSequence.map(JSON.string)
        frames.append(["choices": [.object(choice)]])
        frames.append([
            "choices": [], "usage": ["prompt_tokens": .integer(promptTokens), "completion_tokens": .integer(completionTokens)],
        ])
        return Self.events(frames) + "data: [DONE]\n\n"
    }

    private var dashScopeStream: String {
        let usage: JSON = ["input_tokens": .integer(promptTokens), "output_tokens": .integer(completionTokens)]
        var frames: [JSON] = deltas(reasoning: "reasoning_content") { .string($0.text) }.map {
            ["output": ["choices": [["message": $0, "finish_reason": "null"]]], "usage": usage]
        }
        frames.append(["output": ["choices": [["message": ["content": ""], "finish_reason": .string(reason.rawValue)]]], "usage": usage])
        return Self.events(frames)
    }

    private var ollamaStream: String {
        var frames: [JSON] = deltas(reasoning: "thinking") { $0 }.map { ["message": $0, "done": false] }
        frames.append([
            "message": ["content": ""], "done": true, "done_reason": .string(reason == .toolCalls ? "stop" : reason.rawValue),
            "prompt_eval_count": .integer(promptTokens), "eval_count": .integer(completionTokens),
        ])
        return frames.map { $0.text + "\n" }.joined()
    }

    private var anthropicStream: String {
        var frames: [JSON] = [
            ["type": "message_start", "message": ["usage": ["input_tokens": .integer(promptTokens), "output_tokens": 1]]]
        ]
        for (index, part) in parts.enumerated() {
            let index = JSON.integer(index)
            func start(_ block: JSON) { frames.append(["type": "content_block_start", "index": index, "content_block": block]) }
            func delta(_ delta: JSON) { frames.append(["type": "content_block_delta", "index": index, "delta": delta]) }
            switch part {
            case .thought(let text, let signature):
                start(["type": "thinking", "thinking": "", "signature": ""])
                if !text.isEmpty { delta(["type": "thinking_delta", "thinking": .string(text)]) }
                delta(["type": "signature_delta", "signature": .string(signature)])
            case .redacted(let data): start(["type": "redacted_thinking", "data": .string(data)])
            case .said(let text):
                start(["type": "text", "text": ""])
                delta(["type": "text_delta", "text": .string(text)])
            case .call(let id, let name, let input):
                start(["type": "tool_use", "id": .string(id), "name": .string(name), "input": [:]])
                delta(["type": "input_json_delta", "partial_json": .string(input.text)])
            }
            frames.append(["type": "content_block_stop", "index": index])
        }
        let word: JSON =
            switch reason {
            case .length: "max_tokens"
            case .toolCalls: "tool_use"
            case .contentFilter: "refusal"
            default: stopSequence == nil ? "end_turn" : "stop_sequence"
            }
        frames.append([
            "type": "message_delta", "delta": ["stop_reason": word, "stop_sequence": stopSequence.map(JSON.string) ?? .null],
            "usage": ["output_tokens": .integer(completionTokens)],
        ])
        frames.append(["type": "message_stop"])
        return Self.events(frames)
    }

    // MARK: as a client of an API reads it

    init(_ api: RoundTripTalk.API, _ events: [GenerationEvent]) throws {
        let id = JobID(partition: 0, milliseconds: 1)
        switch api {
        case .chat:
            var collector = ChatCompletion(model: "m")
            for event in events { _ = try collector.take(event) }
            try readChat(JSON(parsing: collector.body(id: id, created: 0)))
        case .messages:
            let request = try MessagesRequest(
                parsing: Array(
                    #"{"model":"m","max_tokens":9,"thinking":{"type":"adaptive"},"stop_sequences":["END","\n\n"],"messages":[{"role":"user","content":"x"}]}"#
                        .utf8), maximumDepth: 32)
            var collector = MessagesCollector(request.options)
            for event in events { _ = try collector.take(event) }
            try readMessage(JSON(parsing: collector.body(id: id, created: 0)))
        case .responses:
            let object = ResponseObject(id: id, created: 0, isBackground: false, summarizes: false, echo: JSONObject())
            var collector = ResponsesCollector(object)
            for event in events { _ = try collector.take(event) }
            try readResponse(JSON(parsing: collector.body(id: id, created: 0)))
        }
    }

    private mutating func readChat(_ completion: JSON) throws {
        let choice = try #require(completion["choices"]?[0])
        let message = choice["message"]
        if let text = message?["reasoning_content"]?.string { parts.append(.thought(text, signature: "")) }
        if let text = message?["content"]?.string, !text.isEmpty { parts.append(.said(text)) }
        for call in message?["tool_calls"]?.array ?? [] {
            let arguments = try JSON(parsing: call["function"]?["arguments"]?.string ?? "")
            parts.append(.call(id: call["id"]?.string ?? "", name: call["function"]?["name"]?.string ?? "", arguments: arguments))
        }
        reason = try #require(FinishReason(rawValue: choice["finish_reason"]?.string ?? ""))
        promptTokens = completion["usage"]?["prompt_tokens"]?.integer ?? 0
        completionTokens = completion["usage"]?["completion_tokens"]?.integer ?? 0
    }

    private mutating func readMessage(_ message: JSON) throws {
        for block in try #require(message["content"]?.array) {
            switch block["type"]?.string {
            case "thinking": parts.append(.thought(block["thinking"]?.string ?? "", signature: block["signature"]?.string ?? ""))
            case "redacted_thinking": parts.append(.redacted(block["data"]?.string ?? ""))
            case "text": parts.append(.said(block["text"]?.string ?? ""))
            default:
                parts.append(
                    .call(id: block["id"]?.string ?? "", name: block["name"]?.string ?? "", arguments: block["input"] ?? .null))
            }
        }
        switch message["stop_reason"]?.string {
        case "max_tokens": reason = .length
        case "tool_use": reason = .toolCalls
        case "refusal": reason = .contentFilter
        default: break
        }
        stopSequence = message["stop_sequence"]?.string
        #expect((stopSequence != nil) == (message["stop_reason"] == "stop_sequence"))
        promptTokens = message["usage"]?["input_tokens"]?.integer ?? 0
        completionTokens = message["usage"]?["output_tokens"]?.integer ?? 0
    }

    private mutating func readResponse(_ response: JSON) throws {
        for item in try #require(response["output"]?.array) {
            switch item["type"]?.string {
            case "reasoning":
                let text = item["content"]?[0]?["text"]?.string ?? ""
                switch item["encrypted_content"]?.string.flatMap({ EncryptedReasoning.part(parsing: $0) }) {
                case .reasoning(text, let signature?)?: parts.append(.thought(text, signature: signature))
                case .redactedReasoning(let data)?: parts.append(.redacted(data))
                default: parts.append(.thought(text, signature: ""))
                }
            case "message": parts.append(.said(item["content"]?[0]?["text"]?.string ?? ""))
            default:
                let arguments = try JSON(parsing: item["arguments"]?.string ?? "")
                parts.append(.call(id: item["call_id"]?.string ?? "", name: item["name"]?.string ?? "", arguments: arguments))
                reason = .toolCalls
            }
        }
        switch response["incomplete_details"]?["reason"]?.string {
        case "max_output_tokens": reason = .length
        case "content_filter": reason = .contentFilter
        default: break
        }
        promptTokens = response["usage"]?["input_tokens"]?.integer ?? 0
        completionTokens = response["usage"]?["output_tokens"]?.integer ?? 0
    }

    /// The answer as far as the API has words for it.
    func projected(_ api: RoundTripTalk.API) -> RoundTripReply {
        var reply = self
        guard api != .messages else { return reply }
        reply.stopSequence = nil
        guard api != .responses else { return reply }
        reply.parts = []
        for part in parts {
            switch (part, reply.parts.last) {
            case (.redacted, _): break
            case (.thought("", _), _): break
            case (.thought(let text, _), .thought(let earlier, _)?):
                reply.parts[reply.parts.count - 1] = .thought(earlier + text, signature: "")
            case (.thought(let text, _), _): reply.parts.append(.thought(text, signature: ""))
            case (.said(let text), .said(let earlier)?): reply.parts[reply.parts.count - 1] = .said(earlier + text)
            default: reply.parts.append(part)
            }
        }
        // One text of each kind.
        func joined(_ text: (Part) -> String?) -> String { reply.parts.compactMap(text).joined() }
        let thoughts = joined { if case .thought(let text, _) = $0 { text } else { nil } }
        let said = joined { if case .said(let text) = $0 { text } else { nil } }
        let calls = reply.parts.filter { if case .call = $0 { true } else { false } }
        reply.parts = (thoughts.isEmpty ? [] : [.thought(thoughts, signature: "")]) + (said.isEmpty ? [] : [.said(said)]) + calls
        return reply
    }
}
