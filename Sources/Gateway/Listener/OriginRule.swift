/// Decides which web origins may use the gateway (RFC 6455, 10.2). WebSocket requests are checked before the upgrade.
package struct OriginRule: Sendable {
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

    /// Whether pages of the origin may read responses (CORS). Pages of the request's own host need no permission.
    func listsOrigin(_ origin: String) -> Bool { allowed?.contains(Self.normalized(origin)) ?? false }

    /// Whether a browser could send this origin: scheme and host, with a port if it is not the default one, or `null`. There are no patterns.
    package static func isOrigin(_ text: String) -> Bool {
        guard text != "null" else { return true }
        guard let separator = text.firstRange(of: "://"), separator.lowerBound > text.startIndex else { return false }
        var authority = text[separator.upperBound...]
        if authority.hasSuffix("/") { authority.removeLast() }
        return !authority.isEmpty && authority.utf8.allSatisfy { (0x21..<0x7F).contains($0) && !"/?#@*\\".utf8.contains($0) }
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

/// Decides which Host headers are accepted.
///
/// A gateway without authentication is protected only by its loopback address. A web page can bypass that by DNS rebinding: the page's
/// host name resolves to 127.0.0.1, so that the browser treats the gateway as the page's own server. The requests then carry that name in
/// the Host header.
enum HostRule: Sendable {
    case any
    /// Accepts `localhost`, 127.0.0.0/8 and `[::1]` with any port, and requests without a Host (HTTP/1.0), which browsers do not send.
    case loopback

    init(_ settings: AuthenticationSettings) { self = settings.none && !settings.noneAnywhere ? .loopback : .any }

    /// - Parameter hosts: the values of all Host headers of a request.
    func allows(_ hosts: [String]) -> Bool {
        switch self {
        case .any: true
        case .loopback: hosts.allSatisfy { AuthenticationSettings.isLoopback(Self.withoutPort($0.lowercased())) }
        }
    }

    /// The host of `host [":" port]` (RFC 9110, 7.2). Returns malformed text unchanged, which is never a loopback host.
    private static func withoutPort(_ authority: String) -> String {
        guard let colon = authority.lastIndex(of: ":"), !authority.hasSuffix("]") else { return authority }
        let port = authority[authority.index(after: colon)...]
        return port.utf8.count <= 5 && port.utf8.allSatisfy { $0 &- 0x30 < 10 } ? String(authority[..<colon]) : authority
    }
}
