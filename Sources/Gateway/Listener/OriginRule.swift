/// Which pages of the web may open a WebSocket here (RFC 6455 section 10.2). Judged before the upgrade.
struct OriginRule: Sendable {
    /// Nil: only the host that the request itself names.
    private let allowed: Set<String>?

    init(allowed: [String]?) { self.allowed = allowed.map { Set($0.map(Self.normalized)) } }

    /// - Parameters:
    ///   - origin: the header; nil: none, so it was no browser that asked.
    ///   - host: the Host header.
    func allows(origin: String?, host: String?) -> Bool {
        guard let origin else { return true }
        let given = Self.normalized(origin)
        if let allowed { return allowed.contains(given) }
        guard let host, let separator = given.firstRange(of: "://") else { return false }
        let scheme = given[..<separator.lowerBound]
        return Self.withoutPort(String(given[separator.upperBound...]), scheme) == Self.withoutPort(host.lowercased(), scheme)
    }

    private static func normalized(_ origin: String) -> String {
        var text = origin.lowercased()
        if text.hasSuffix("/") { text.removeLast() }
        return text
    }

    /// Without the port that the scheme implies.
    private static func withoutPort(_ authority: String, _ scheme: some StringProtocol) -> String {
        let suffix = scheme == "https" || scheme == "wss" ? ":443" : ":80"
        return authority.hasSuffix(suffix) ? String(authority.dropLast(suffix.count)) : authority
    }
}
