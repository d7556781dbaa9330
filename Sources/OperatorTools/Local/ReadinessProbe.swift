import NIOCore
import NIOPosix

/// Checks over HTTP whether a node is ready.
package enum ReadinessProbe {
    /// Whether `GET /readyz` returns 200.
    package static func isReady(_ address: ListenAddress) async -> Bool { await answers(address, "/readyz") }

    /// Whether `GET` of a path returns 200. False also when the connection fails; connecting times out after 1 s.
    package static func answers(_ address: ListenAddress, _ path: String) async -> Bool {
        let host = ChatAddress(listening: address).host
        do {
            let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connectTimeout(.seconds(1))
                .connect(host: host, port: address.port) { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                    }
                }
            return try await channel.executeThenClose { inbound, outbound in
                try await outbound.write(ByteBuffer(string: "GET \(path) HTTP/1.1\r\nHost: \(address)\r\nConnection: close\r\n\r\n"))
                for try await bytes in inbound { return String(buffer: bytes).hasPrefix("HTTP/1.1 200") }
                return false
            }
        } catch {
            return false
        }
    }
}
