/// The speech upstream as the operator configured it.
package struct SpeechConfiguration: Sendable, Hashable {
    package enum Kind: String, Sendable, CaseIterable { case openai, dashscope }

    package var kind: Kind
    /// Base URL, with or without a trailing slash.
    package var url: String
    /// API key; nil for an upstream without authentication.
    package var key: String?
    /// Default model and voice, for jobs that name none.
    package var model: String
    package var voice: String

    /// - Parameters:
    ///   - model: Default model; nil selects a model of the provider.
    ///   - voice: Default voice; nil selects a voice of the provider.
    package init(kind: Kind, url: String, key: String?, model: String?, voice: String?) {
        self.kind = kind
        self.url = url
        self.key = key
        self.model = model ?? (kind == .openai ? "gpt-4o-mini-tts" : "qwen3-tts-flash")
        self.voice = voice ?? (kind == .openai ? "alloy" : "Cherry")
    }

    /// The same upstream as an `UpstreamConfiguration`, for the code that both share: URLs, keys and errors.
    var upstream: UpstreamConfiguration {
        UpstreamConfiguration(name: "speech", kind: kind == .openai ? .openai : .dashscope, url: url, key: key)
    }
}
