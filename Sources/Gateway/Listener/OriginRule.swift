/// Decides which web origins may use the gateway (RFC 6455, 10.2). WebSocket requests are checked before the upgrade.
struct OriginRule: Sendable {
    /// The allowed origins; nil to allow only the origin of the request's own host.
    private let allowed: Set<String>?

    init(allowed: [String]?) { self.allowed = allowed.map { Set($0.map(Self.normalized)) } }

    /// - Parameters:
    ///   - origin: the Origin header; nil when absent. Clients other than browsers send none and are allowed.
    ///   - host: the Host header; nil when absent.
    func allows(origin: String?, host: String?) -> Bool {
        guard let origin else { return true }
        let given = Self.normalized(origin)
        if let allowed { return allowed.contains(given) }
        guard let host, let separator = given.firstRange(of: "://") else { return false }
        let scheme = given[..<separator.lowerBound]
        return Self.withoutPort(String(given[separator.upperBound...]), scheme) == Self.withoutPort(host.lowercased(), scheme)
    }

    /// The origin in lower case without a trailing slash.
    private static func normalized(_ origin: String) -> String {
        var text = origin.lowercased()
        if text.hasSuffix("/") { text.removeLast() }
        return text
    }

    /// The authority without the scheme's default port.
    private static func withoutPort(_ authority: String, _ scheme: some StringProtocol) -> String {
        let suffix = scheme == "https" || scheme == "wss" ? ":443" : ":80"
        return authority.hasSuffix(suffix) ? String(authority.dropLast(suffix.count)) : authority
    }
}
