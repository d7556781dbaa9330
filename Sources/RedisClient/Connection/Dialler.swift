import NIOCore
import NIOPosix
import NIOSSL

/// Opens channels to one server: name resolution, TCP or Unix socket, TLS. Used only on its event loop.
final class Dialler {
    private let url: RedisURL
    private let settings: RedisSettings
    private let eventLoop: any EventLoop
    /// Created once, at the first connection attempt, because reading the system's CAs takes milliseconds.
    private var context: NIOSSLContext?

    init(url: RedisURL, settings: RedisSettings, eventLoop: any EventLoop) {
        self.url = url
        self.settings = settings
        self.eventLoop = eventLoop
    }

    /// Opens a channel. `done` is called once on the event loop, possibly before this method returns. With TLS the handshake follows on the
    /// channel.
    func dial(_ done: @escaping (Result<any Channel, RedisError>) -> Void) {
        let bootstrap = ClientBootstrap(group: eventLoop)
            .connectTimeout(settings.connectTimeout)
            .channelOption(.socketOption(.so_keepalive), value: 1)
        let connected: EventLoopFuture<any Channel>
        switch url.endpoint {
        case .tcp(let host, let port, let tls):
            // Before connecting, so that a bad CA file does not open a connection to the server with every attempt.
            if tls {
                do throws(RedisError) { try prepareTLS() } catch { return done(.failure(error)) }
            }
            connected = bootstrap.channelOption(.tcpOption(.tcp_nodelay), value: 1).connect(host: host, port: port)
        case .unix(let path):
            connected = bootstrap.connect(unixDomainSocketPath: path)
        }
        connected.hop(to: eventLoop).assumeIsolated().whenComplete { result in
            switch result {
            case .success(let channel): done(.success(channel))
            case .failure(let error): done(.failure(RedisError(.unavailable, failureReason(error))))
            }
        }
    }

    /// The TLS handler to add to a channel before the link; nil without TLS.
    /// - Throws: `.unavailable` when TLS cannot be set up.
    func makeTLSHandler() throws(RedisError) -> NIOSSLClientHandler? {
        guard case .tcp(let host, _, true) = url.endpoint else { return nil }
        let context = try prepareTLS()
        // SNI allows host names only. For an IP address the certificate is verified against the address itself.
        let isAddress = (try? SocketAddress(ipAddress: host, port: 0)) != nil
        do {
            return try NIOSSLClientHandler(context: context, serverHostname: isAddress ? nil : host)
        } catch {
            throw RedisError(.unavailable, "TLS cannot be set up: \(failureReason(error))")
        }
    }

    @discardableResult
    private func prepareTLS() throws(RedisError) -> NIOSSLContext {
        if let context { return context }
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.minimumTLSVersion = .tlsv12
        if let file = settings.caFile { configuration.trustRoots = .file(file) }
        do {
            let made = try NIOSSLContext(configuration: configuration)
            context = made
            return made
        } catch {
            throw RedisError(
                .unavailable, "TLS cannot be set up\(settings.caFile.map { " with the CA file \($0)" } ?? ""): \(failureReason(error))")
        }
    }
}
