/// The recognition upstream as the operator configured it.
package struct RecognitionConfiguration: Sendable, Hashable {
    package enum Kind: String, Sendable, CaseIterable { case openai, dashscope }

    package var kind: Kind
    /// Base URL, with or without a trailing slash.
    package var url: String
    /// API key; nil for an upstream without authentication.
    package var key: String?
    package var model: String
    /// Language of jobs that name none; nil: the upstream detects it.
    package var language: String?

    /// - Parameter model: nil selects a model of the provider.
    package init(kind: Kind, url: String, key: String?, model: String?, language: String?) {
        self.kind = kind
        self.url = url
        self.key = key
        self.model = model ?? (kind == .openai ? "whisper-1" : "qwen3-asr-flash")
        self.language = language
    }

    /// The same upstream as an `UpstreamConfiguration`, for the code that both share: URLs, keys and errors.
    var upstream: UpstreamConfiguration {
        UpstreamConfiguration(name: "recognition", kind: kind == .openai ? .openai : .dashscope, url: url, key: key)
    }
}
