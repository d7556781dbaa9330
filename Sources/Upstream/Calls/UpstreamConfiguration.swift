/// One upstream as the operator configured it.
package struct UpstreamConfiguration: Sendable, Hashable {
    /// The provider API that an upstream speaks.
    package enum Kind: String, Sendable, CaseIterable { case openai, dashscope, anthropic, ollama }
    /// The request field that asks an upstream to continue the last assistant message; `none` if it cannot.
    package enum Prefix: String, Sendable, CaseIterable { case none, partial, prefix, `continue` }
    package var name: String
    package var kind: Kind
    /// Base URL, with or without a trailing slash.
    package var url: String
    /// API key; nil for an upstream without authentication.
    package var key: String?
    /// How the upstream is asked to continue a partial answer.
    package var prefix: Prefix
    /// Models that this upstream serves; empty means every model.
    package var models: [String] = []
    /// Model names in requests, mapped to the names that this upstream uses.
    package var aliases: [String: String] = [:]
    /// Whether closing the connection ends generation and billing.
    package enum Abort: String, Sendable, CaseIterable { case stops, continues, unknown }
    package var abort: Abort
    /// Maximum number of requests per minute of all workers; nil means no limit.
    package var requestsPerMinute: Int?
    /// Maximum number of tokens per minute of all workers, of prompts and completions; nil means no limit.
    package var tokensPerMinute: Int?
    /// Maximum number of concurrent requests of all workers; nil means no limit.
    package var concurrency: Int?
    /// Names of the upstreams to try when this one fails, in order.
    package var fallback: [String] = []
    /// Whether a key can be sent: HTTP headers take no control characters, and keys have no spaces.
    package static func isSendable(key: String) -> Bool { key.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F } }

    package init(name: String, kind: Kind, url: String, key: String?) {
        self.name = name
        self.kind = kind
        self.url = url
        self.key = key
        prefix = kind == .dashscope ? .partial : .none
        abort = kind == .dashscope || kind == .ollama ? .stops : .unknown
    }
}
