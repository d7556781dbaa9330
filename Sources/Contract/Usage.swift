import JSONCodec
import Support

/// The token usage of a job, over all its attempts.
package struct Usage: Sendable, Hashable {
    package var promptTokens: Int
    package var completionTokens: Int
    /// How many of the prompt's tokens came from the provider's cache; nil when no upstream reported it.
    package var cachedTokens: Int?
    /// How many of the completion's tokens are reasoning; nil when no upstream reported it.
    package var reasoningTokens: Int?
    /// Whether what an interrupted job cost is known; nil for other jobs.
    package enum Billing: String, Sendable, CaseIterable {
        /// The provider has reported all of it, and closing the connection ended generation.
        case exact
        /// Counted here, at least what was delivered.
        case estimated
        /// The provider goes on generating, and billing, after the connection was closed.
        case `continues`
    }

    package var billing: Billing?
    /// Whether a part of the usage was estimated; false only when the upstream reported all of it.
    package var estimated: Bool

    package init(
        promptTokens: Int, completionTokens: Int, estimated: Bool, cachedTokens: Int? = nil, reasoningTokens: Int? = nil
    ) {
        self.promptTokens = promptTokens
        self.completionTokens = completionTokens
        self.cachedTokens = cachedTokens
        self.reasoningTokens = reasoningTokens
        self.estimated = estimated
    }

    /// The usage of a job that was never sent to an upstream: exactly zero.
    package static let none = Usage(promptTokens: 0, completionTokens: 0, estimated: false)

    package static func + (left: Usage, right: Usage) -> Usage {
        Usage(
            promptTokens: left.promptTokens.saturatingAdding(right.promptTokens),
            completionTokens: left.completionTokens.saturatingAdding(right.completionTokens),
            estimated: left.estimated || right.estimated, cachedTokens: sum(left.cachedTokens, right.cachedTokens),
            reasoningTokens: sum(left.reasoningTokens, right.reasoningTokens))
    }

    private static func sum(_ left: Int?, _ right: Int?) -> Int? {
        guard let left, let right else { return left ?? right }
        return left.saturatingAdding(right)
    }

    /// Appends the JSON object.
    package func append(to out: inout [UInt8]) {
        out.append(UInt8(ascii: "{"))
        out.appendJSONMember("prompt_tokens", promptTokens)
        out.appendJSONMember("completion_tokens", completionTokens)
        out.appendJSONMember("estimated", estimated)
        if let cachedTokens { out.appendJSONMember("cached_tokens", cachedTokens) }
        if let reasoningTokens { out.appendJSONMember("reasoning_tokens", reasoningTokens) }
        if let billing { out.appendJSONMember("billing", billing.rawValue) }
        out.append(UInt8(ascii: "}"))
    }

    package var json: JSON {
        var members = JSONObject()
        members["prompt_tokens"] = .integer(promptTokens)
        members["completion_tokens"] = .integer(completionTokens)
        members["estimated"] = .bool(estimated)
        if let cachedTokens { members["cached_tokens"] = .integer(cachedTokens) }
        if let reasoningTokens { members["reasoning_tokens"] = .integer(reasoningTokens) }
        if let billing { members["billing"] = .string(billing.rawValue) }
        return .object(members)
    }

    /// Reads the JSON object; missing fields are 0 or false, unknown fields are skipped.
    package init(scanning scanner: inout JSONScanner) throws(JSONError) {
        self = .none
        try scanner.object { (key, scanner) throws(JSONError) in
            switch key {
            case "prompt_tokens": self.promptTokens = try scanner.count()
            case "completion_tokens": self.completionTokens = try scanner.count()
            case "estimated": self.estimated = try scanner.bool()
            case "cached_tokens": self.cachedTokens = try scanner.count()
            case "reasoning_tokens": self.reasoningTokens = try scanner.count()
            case "billing": self.billing = Billing(rawValue: try scanner.string())
            default: try scanner.skip()
            }
        }
    }

    /// Nil unless both token counts are present. A missing `estimated` counts as true.
    package init?(_ json: JSON?) {
        guard let json, let prompt = json["prompt_tokens"]?.count, let completion = json["completion_tokens"]?.count else { return nil }
        self.init(
            promptTokens: prompt, completionTokens: completion, estimated: json["estimated"]?.bool ?? true,
            cachedTokens: json["cached_tokens"]?.count, reasoningTokens: json["reasoning_tokens"]?.count)
        billing = json["billing"]?.string.flatMap { Billing(rawValue: $0) }
    }
}
