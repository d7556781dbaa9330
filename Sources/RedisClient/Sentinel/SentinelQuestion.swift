import NIOCore

/// Asks one sentinel for the address of a primary, on a connection of its own that is closed afterwards. Used only on its event loop.
final class SentinelQuestion: LinkOwner {
    /// Maximum bytes of a reply; an address has about 30.
    private static let replyMaximum = 64 << 10

    private let url: RedisURL
    private let service: String
    private let dialler: Dialler
    private var done: ((Result<ServerAddress, RedisError>) -> Void)?
    private var link: Link?

    /// - Parameters:
    ///   - url: the address and the password of the sentinel.
    ///   - done: called once on the event loop, unless `cancel` is called before; possibly before `ask` returns.
    init(
        _ url: RedisURL, service: String, dialler: Dialler, done: @escaping (Result<ServerAddress, RedisError>) -> Void
    ) {
        self.url = url
        self.service = service
        self.dialler = dialler
        self.done = done
    }

    func ask() {
        dialler.dial { [self] result in
            switch result {
            case .success(let channel) where done == nil: channel.close(promise: nil)
            case .success(let channel): send(on: channel)
            case .failure(let error): finish(.failure(RedisError(.unavailable, "\(url): \(error)")))
            }
        }
    }

    /// Ends the question without a call of `done`.
    func cancel() {
        done = nil
        link?.end(RedisError(.shutdown, "cancelled"))
        link = nil
    }

    private func send(on channel: any Channel) {
        var pipeline = RedisPipeline()
        if let password = url.password { pipeline.append("AUTH", .string(password)) }
        pipeline.append("SENTINEL", "GET-MASTER-ADDR-BY-NAME", .string(service))
        var missing = pipeline.count
        do {
            let builder = ReplyBuilder { [weak self] reply in
                missing -= 1
                self?.received(reply, isLast: missing == 0)
            }
            let link = try Link(owner: self, sink: builder, replyMaximum: Self.replyMaximum)
            self.link = link
            if let tls = try dialler.makeTLSHandler() { try channel.pipeline.syncOperations.addHandler(tls) }
            try channel.pipeline.syncOperations.addHandler(link)
            link.write(pipeline.buffer)
            link.flush()
        } catch {
            channel.close(promise: nil)
            finish(.failure(error as? RedisError ?? RedisError(.unavailable, "\(url): \(failureReason(error))")))
        }
    }

    private func received(_ reply: RESPValue, isLast: Bool) {
        if case .error(let text) = reply {
            // The sentinel has another password, or none: `ERR AUTH … without any password configured` does no harm.
            if isLast || !text.hasPrefix("ERR AUTH") { finish(.failure(RedisError(.server, "\(url): \(text)"))) }
            return
        }
        guard isLast else { return }
        let parts = reply.array ?? []
        if let host = parts.first?.string, parts.count == 2, let address = ServerAddress(host: host, port: parts[1].string ?? "") {
            finish(.success(address))
        } else {
            let reason = reply.isNull ? "it does not know this service" : "unexpected reply: \(reply.shape)"
            finish(.failure(RedisError(.server, "\(url): \(reason)")))
        }
    }

    private func finish(_ result: Result<ServerAddress, RedisError>) {
        guard let done else { return }
        self.done = nil
        link?.end(RedisError(.shutdown, "answered"))
        link = nil
        done(result)
    }

    func linkEnded(_ link: Link, _ reason: RedisError) {
        finish(.failure(RedisError(.unavailable, "\(url): \(reason)")))
    }
}
