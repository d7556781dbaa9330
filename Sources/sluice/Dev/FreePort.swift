import NIOCore
import NIOPosix

/// Looks whether an address can be listened on, by listening on it for a moment.
enum FreePort {
    /// How many ports after the wanted one are tried.
    private static let tries = 50

    /// The address, or with the next port after it that is free; nil when there is none. Somebody may take it before it is used: then
    /// listening fails, and says so.
    static func find(from address: ListenAddress) async -> ListenAddress? {
        for port in address.port..<min(65_536, address.port + tries) {
            let candidate = ListenAddress(host: address.host, port: port)
            if let port = await listen(candidate) { return ListenAddress(host: address.host, port: port) }
        }
        return nil
    }

    /// The port that was bound; nil: it is taken, or may not be used.
    private static func listen(_ address: ListenAddress) async -> Int? {
        do {
            let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .bind(host: address.host, port: address.port).get()
            let port = channel.localAddress?.port
            try await channel.close()
            return port
        } catch {
            return nil
        }
    }
}
