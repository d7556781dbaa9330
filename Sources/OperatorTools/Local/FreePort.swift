import NIOCore
import NIOPosix

/// Finds a free port by binding and closing a listener.
package enum FreePort {
    /// Number of ports to try.
    private static let tries = 50

    /// The address with its own port, or with the next free one; nil when all tried ports are in use. Another process may take the port
    /// before the caller binds it; then the caller's bind fails.
    package static func find(from address: ListenAddress) async -> ListenAddress? {
        for port in address.port..<min(65_536, address.port + tries) {
            let candidate = ListenAddress(host: address.host, port: port)
            if let port = await listen(candidate) { return ListenAddress(host: address.host, port: port) }
        }
        return nil
    }

    /// Binds the address for a moment.
    /// - Returns: the bound port; nil when it is in use or not permitted.
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
