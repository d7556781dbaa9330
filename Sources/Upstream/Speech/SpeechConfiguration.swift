/// Who speaks, as the operator configured it.
package struct SpeechConfiguration: Sendable, Hashable {
    package enum Kind: String, Sendable, CaseIterable { case openai, dashscope }

    package var kind: Kind
    package var url: String
    package var key: String?
    /// Unless the job names another.
    package var model: String
    package var voice: String

    /// - Parameters: model, voice: nil takes one that the provider is known to have.
    package init(kind: Kind, url: String, key: String?, model: String?, voice: String?) {
        self.kind = kind
        self.url = url
        self.key = key
        self.model = model ?? (kind == .openai ? "gpt-4o-mini-tts" : "qwen3-tts-flash")
        self.voice = voice ?? (kind == .openai ? "alloy" : "Cherry")
    }

    /// The same as an upstream, for what both have in common: addresses, keys, the meaning of errors.
    var upstream: UpstreamConfiguration {
        UpstreamConfiguration(name: "speech", kind: kind == .openai ? .openai : .dashscope, url: url, key: key)
    }
}
