/// One upstream as the operator configured it.
package struct UpstreamConfiguration: Sendable, Hashable {
    package enum Kind: String, Sendable, CaseIterable { case openai, dashscope, anthropic, ollama }
    package enum Prefix: String, Sendable, CaseIterable { case none, partial, prefix, `continue` }
    package var name: String
    package var kind: Kind
    package var url: String
    package var key: String?
    /// How an answer is continued from a prefix.
    package var prefix: Prefix
    /// Empty: every model.
    package var models: [String] = []
    package var aliases: [String: String] = [:]
    package var requestsPerMinute: Int?
    package var concurrency: Int?
    package var fallback: [String] = []
    package init(name: String, kind: Kind, url: String, key: String?) {
        self.name = name
        self.kind = kind
        self.url = url
        self.key = key
        prefix = kind == .dashscope ? .partial : .none
    }
}

package struct UpstreamSettings: Sendable {
    package var connectTimeout: Duration = .seconds(5)
    /// PEM file of the CAs to trust; nil: the system's.
    package var caFile: String?
    /// Idle connections kept open for reuse.
    package var connectionsKept = 256
    package var http2 = false
    package init() {}
}
