/// Which Host headers are answered.
///
/// A gateway that asks for no credential is protected by its loopback address alone. A page of another site gets around that by DNS
/// rebinding: its own name resolves to 127.0.0.1, and the browser takes the gateway for the page's own server. Its requests then bear that
/// name as their Host.
enum HostRule: Sendable {
    case any
    /// `localhost`, 127.0.0.0/8 and `[::1]`, with any port. A request without a Host (HTTP/1.0) is no browser's.
    case loopback

    init(_ settings: AuthenticationSettings) { self = settings.none && !settings.noneAnywhere ? .loopback : .any }

    /// - Parameter hosts: every Host header of a request.
    func allows(_ hosts: [String]) -> Bool {
        switch self {
        case .any: true
        case .loopback: hosts.allSatisfy { AuthenticationSettings.isLoopback(Self.withoutPort($0.lowercased())) }
        }
    }

    /// RFC 9110, 7.2: `host [":" port]`. What is no such thing is no loopback host either.
    private static func withoutPort(_ authority: String) -> String {
        guard let colon = authority.lastIndex(of: ":"), !authority.hasSuffix("]") else { return authority }
        let port = authority[authority.index(after: colon)...]
        return port.utf8.count <= 5 && port.utf8.allSatisfy { $0 &- 0x30 < 10 } ? String(authority[..<colon]) : authority
    }
}
