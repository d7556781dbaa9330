import NIOCore

/// Asks one server one question, on a connection of its own that is closed afterwards. Used only on its event loop.
final class ServerQuestion<Answer>: LinkOwner {
    private let url: RedisURL
    private let command: [RedisArgument]
    private let replyMaximum: Int
    private let dialler: Dialler
    private let parse: (RESPValue) throws(RedisError) -> Answer
    private var done: ((Result<Answer, RedisError>) -> Void)?
    private var link: Link?

    /// - Parameters:
    ///   - url: the address of the server, and the login.
    ///   - replyMaximum: maximum bytes of the reply.
    ///   - parse: reads the reply. Its errors need not name the server.
    ///   - done: called once on the event loop, unless `cancel` is called before; possibly before `ask` returns.
    init(
        _ url: RedisURL, _ command: [RedisArgument], replyMaximum: Int, dialler: Dialler,
        parse: @escaping (RESPValue) throws(RedisError) -> Answer, done: @escaping (Result<Answer, RedisError>) -> Void
    ) {
        self.url = url
        self.command = command
        self.replyMaximum = replyMaximum
        self.dialler = dialler
        self.parse = parse
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
        dialler.stop()
        link?.end(RedisError(.shutdown, "cancelled"))
        link = nil
    }

    private func send(on channel: any Channel) {
        var pipeline = RedisPipeline()
        if let password = url.password { pipeline.append(["AUTH"] + (url.user.map { [.string($0)] } ?? []) + [.string(password)]) }
        pipeline.append(command)
        var missing = pipeline.count
        do {
            let builder = ReplyBuilder { [weak self] reply in
                missing -= 1
                self?.received(reply, isLast: missing == 0)
            }
            let link = try Link(owner: self, sink: builder, replyMaximum: replyMaximum)
            self.link = link
            if let tls = try dialler.makeTLSHandler() { try channel.pipeline.syncOperations.addHandler(tls) }
            try channel.pipeline.syncOperations.addHandler(link)
            link.write(pipeline.bytes)
            link.flush()
        } catch {
            channel.close(promise: nil)
            finish(.failure(error as? RedisError ?? RedisError(.unavailable, "\(url): \(failureReason(error))")))
        }
    }

    private func received(_ reply: RESPValue, isLast: Bool) {
        if case .error(let text) = reply {
            // `ERR AUTH … without any password configured` does no harm.
            if isLast || !text.hasPrefix("ERR AUTH") { finish(.failure(RedisError(.server, "\(url): \(text)"))) }
            return
        }
        guard isLast else { return }
        do throws(RedisError) {
            finish(.success(try parse(reply)))
        } catch {
            finish(.failure(RedisError(error.code, "\(url): \(error)")))
        }
    }

    private func finish(_ result: Result<Answer, RedisError>) {
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
