import Contract
import Support

/// The finish reasons of all providers.
enum FinishReasons {
    enum Meaning: Equatable {
        case finished(FinishReason)
        /// The provider broke the answer off.
        case failed(Failure)
    }

    /// Parts of the words with which providers say that they broke an answer off.
    private static let failureWords = [
        "error", "fail", "insufficient", "abort", "cancel", "timeout", "timed_out", "time_out", "overload", "unavailable", "exception",
        "crash",
        "disconnect", "interrupt", "malformed", "invalid", "killed", "preempt", "exhaust", "rate_limit", "quota", "unexpected_tool_call",
        "too_many_tool_calls",
    ]

    /// Interprets a finish reason in any case and spelling. Unknown reasons that name no failure count as a normal stop.
    static func meaning(of reason: String) -> Meaning {
        // The search for failure words takes longer than everything else at the end of an answer.
        if ["stop", "end_turn", "stop_sequence"].contains(reason) { return .finished(.stop) }
        let word = reason.cut(toBytes: 128).lowercased().replacing("-", with: "_")
        switch word {
        case "length", "max_tokens", "max_output_tokens", "max_new_tokens", "max_length", "token_limit", "limit", "model_length",
            "context_length",
            "context_length_exceeded", "model_context_window_exceeded":
            return .finished(.length)
        case "tool_calls", "tool_call", "tool_use", "function_call": return .finished(.toolCalls)
        case "content_filter", "content_filtered", "sensitive", "refusal", "safety", "recitation", "blocklist", "prohibited_content",
            "spii",
            "image_safety":
            return .finished(.contentFilter)
        // Ollama loaded or unloaded the model and generated nothing.
        case "load", "unload": break
        default: guard failureWords.contains(where: { word.contains($0) }) else { return .finished(.stop) }
        }
        let isOverloaded = word.contains("overload") || word.contains("insufficient_system_resource")
        return .failed(
            Failure(
                isOverloaded ? .overloaded : .upstreamError,
                "the upstream broke its answer off with finish reason \"\(reason.cut(toBytes: 100))\""))
    }
}
