import NIOCore
import NIOPosix
import NIOSSL

/// Opens channels to one server, or to the primary that the sentinels name: name resolution, TCP or Unix socket, TLS. Used only on its event
/// loop.
final class Dialler {
    private let url: RedisURL
    private let settings: RedisSettings
    private let eventLoop: any EventLoop
    /// Created once, at the first connection attempt, because reading the system's CAs takes milliseconds.
    private var context: NIOSSLContext?
    private let search: PrimarySearch?
    /// The server that is being dialled or was dialled last; nil for a Unix socket and while the sentinels are asked.
    private(set) var server: ServerAddress?
    /// The dial in progress.
    private var dial: Dial?

    /// The channels of one dial that are being connected; several when a name has several addresses.
    private final class Dial {
        var channels: [any Channel] = []
        var isStopped = false
    }

    init(url: RedisURL, settings: RedisSettings, eventLoop: any EventLoop) {
        self.url = url
        self.settings = settings
        self.eventLoop = eventLoop
        if case .sentinel(let service, _, _) = url.endpoint {
            let sentinels = url.sentinels(password: settings.sentinelPassword)
            search = PrimarySearch(service: service, sentinels: sentinels, settings: settings, eventLoop: eventLoop)
        } else {
            search = nil
        }
    }

    /// Abandons a search for the primary, whose `done` is not called then, and closes channels that are being connected, whose `done` receives
    /// an error.
    func stop() {
        search?.end()
        guard let dial else { return }
        self.dial = nil
        dial.isStopped = true
        for channel in dial.channels { channel.close(promise: nil) }
    }

    /// Opens a channel. `done` is called once on the event loop, possibly before this method returns. With TLS the handshake follows on the
    /// channel.
    func dial(_ done: @escaping (Result<any Channel, RedisError>) -> Void) {
        switch url.endpoint {
        case .tcp(let address, _): connect(to: address, done)
        case .unix(let path): finish(done) { $0.connect(unixDomainSocketPath: path) }
        case .sentinel:
            server = nil
            search?.start { [weak self] result in
                switch result {
                case .success(let address): self?.connect(to: address, done)
                case .failure(let error): done(.failure(error))
                }
            }
        // The nodes of a cluster are dialled by their own URLs.
        case .cluster: done(.failure(RedisError(.invalidURL, "a cluster has no single server")))
        }
    }

    private func connect(to address: ServerAddress, _ done: @escaping (Result<any Channel, RedisError>) -> Void) {
        server = address
        // Before connecting, so that a bad CA file does not open a connection to the server with every attempt.
        if url.usesTLS {
            do throws(RedisError) { try prepareTLS() } catch { return done(.failure(error)) }
        }
        finish(done) { bootstrap in
            let bootstrap = bootstrap.channelOption(.tcpOption(.tcp_nodelay), value: 1)
            // Names are resolved on another thread, and a resolution cannot be stopped: its result may arrive when the event loop has ended.
            if let resolved = try? SocketAddress(ipAddress: address.host, port: address.port) { return bootstrap.connect(to: resolved) }
            return bootstrap.connect(host: address.host, port: address.port)
        }
    }

    private func finish(
        _ done: @escaping (Result<any Channel, RedisError>) -> Void, connect: (ClientBootstrap) -> EventLoopFuture<any Channel>
    ) {
        let dial = Dial()
        self.dial = dial
        let bound = NIOLoopBound(dial, eventLoop: eventLoop)
        let bootstrap = ClientBootstrap(group: eventLoop)
            .connectTimeout(settings.connectTimeout)
            .channelOption(.socketOption(.so_keepalive), value: 1)
            .channelInitializer { channel in
                // The name may have been resolved after the stop.
                guard !bound.value.isStopped else { return channel.eventLoop.makeFailedFuture(ChannelError.ioOnClosedChannel) }
                bound.value.channels.append(channel)
                return channel.eventLoop.makeSucceededVoidFuture()
            }
        connect(bootstrap).hop(to: eventLoop).assumeIsolated().whenComplete { [self] result in
            if self.dial === dial { self.dial = nil }
            switch result {
            case .success(let channel): done(.success(channel))
            case .failure(let error): done(.failure(RedisError(.unavailable, failureReason(error))))
            }
        }
    }

    /// The TLS handler to add to a channel before the link; nil without TLS.
    /// - Throws: `.unavailable` when TLS cannot be set up.
    func makeTLSHandler() throws(RedisError) -> NIOSSLClientHandler? {
        guard url.usesTLS, let host = server?.host else { return nil }
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
            if let certificateFile = settings.certificateFile, let keyFile = settings.keyFile {
                do {
                    configuration.certificateChain = try NIOSSLCertificate.fromPEMFile(certificateFile).map { .certificate($0) }
                    configuration.privateKey = .privateKey(try NIOSSLPrivateKey(file: keyFile, format: .pem))
                } catch {
                    throw RedisError(
                        .unavailable,
                        "the client certificate \(certificateFile) with the key \(keyFile) cannot be read: \(failureReason(error))")
                }
            }
            let made = try NIOSSLContext(configuration: configuration)
            context = made
            return made
        } catch let error as RedisError {
            throw error
        } catch {
            throw RedisError(
                .unavailable, "TLS cannot be set up\(settings.caFile.map { " with the CA file \($0)" } ?? ""): \(failureReason(error))")
        }
    }
}
