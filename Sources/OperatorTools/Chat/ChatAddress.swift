/// The address of a gateway's WebSocket: `ws://host:port/ws/agent/stream`.
package struct ChatAddress: Sendable, Equatable, CustomStringConvertible {
    /// The path of the protocol.
    package static let path = "/ws/agent/stream"

    package var host: String
    package var port: Int
    package var path: String
    package var isSecure: Bool

    /// Parses a URL with the scheme `ws`, `wss`, `http` or `https`; the default path is the protocol's. Nil for other text.
    package init?(_ text: String) {
        let schemes = [("ws://", false, 80), ("wss://", true, 443), ("http://", false, 80), ("https://", true, 443)]
        guard let (scheme, isSecure, standardPort) = schemes.first(where: { text.hasPrefix($0.0) }) else { return nil }
        let rest = text.dropFirst(scheme.count)
        let authority = rest.prefix { $0 != "/" && $0 != "?" }
        let tail = rest[authority.endIndex...]
        guard !authority.isEmpty, !text.contains(where: \.isWhitespace), !authority.contains("@") else { return nil }
        let hasPort = authority.hasPrefix("[") ? authority.contains("]:") : authority.contains(":")
        guard let address = ListenAddress(hasPort ? String(authority) : "\(authority):\(standardPort)"), address.port > 0 else {
            return nil
        }
        host = address.host
        port = address.port
        path = tail.isEmpty || tail == "/" ? Self.path : String(tail)
        self.isSecure = isSecure
    }

    /// The address at which this machine reaches a gateway with this listen address.
    package init(listening address: ListenAddress) {
        host = address.host == "0.0.0.0" ? "127.0.0.1" : address.host == "::" ? "::1" : address.host
        port = address.port
        path = Self.path
        isSecure = false
    }

    package var authority: String { ListenAddress(host: host, port: port).description }
    package var description: String { "\(isSecure ? "wss" : "ws")://\(authority)\(path)" }
}
