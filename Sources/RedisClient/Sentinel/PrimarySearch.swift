import NIOCore

/// Finds the primary of a service by asking all its sentinels. Used only on its event loop.
final class PrimarySearch {
    /// How long sentinels that do not answer are waited for.
    private static let patience = TimeAmount.seconds(1)

    /// Maximum bytes of a reply; an address has about 30.
    private static let replyMaximum = 64 << 10

    private let service: String
    private let eventLoop: any EventLoop
    private let sentinels: [(url: RedisURL, dialler: Dialler)]
    private var questions: [ServerQuestion<ServerAddress>] = []
    private var votes: PrimaryVotes
    private var timer: Scheduled<Void>?
    private var done: ((Result<ServerAddress, RedisError>) -> Void)?

    /// - Parameter sentinels: the sentinels' own URLs, with their password.
    init(service: String, sentinels: [RedisURL], settings: RedisSettings, eventLoop: any EventLoop) {
        self.service = service
        self.eventLoop = eventLoop
        self.sentinels = sentinels.map { ($0, Dialler(url: $0, settings: settings, eventLoop: eventLoop)) }
        votes = PrimaryVotes(service: service, sentinels: sentinels.count)
    }

    /// Asks all sentinels. A search that is in progress is abandoned; its `done` is not called.
    /// - Parameter done: called once on the event loop, possibly before this method returns.
    func start(_ done: @escaping (Result<ServerAddress, RedisError>) -> Void) {
        end()
        self.done = done
        votes = PrimaryVotes(service: service, sentinels: sentinels.count)
        timer = eventLoop.assumeIsolated().scheduleTask(in: Self.patience) { [weak self] in
            guard let self else { return }
            decide(votes.timeIsOver())
        }
        questions = sentinels.map { sentinel in
            ServerQuestion(
                sentinel.url, ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", .string(service)], replyMaximum: Self.replyMaximum,
                dialler: sentinel.dialler, parse: Self.address
            ) { [weak self] result in
                guard let self, self.done != nil else { return }
                decide(votes.answered(result))
            }
        }
        for question in questions where self.done != nil { question.ask() }
    }

    private func decide(_ outcome: PrimaryVotes.Outcome) {
        let result: Result<ServerAddress, RedisError>
        switch outcome {
        case .undecided: return
        case .primary(let address): result = .success(address)
        case .none(let error): result = .failure(error)
        }
        let done = self.done
        end()
        done?(result)
    }

    /// Abandons the search.
    func end() {
        timer?.cancel()
        timer = nil
        done = nil
        for question in questions { question.cancel() }
        questions = []
    }

    /// The address in a sentinel's reply.
    private static func address(_ reply: RESPValue) throws(RedisError) -> ServerAddress {
        let parts = reply.array ?? []
        if let host = parts.first?.string, parts.count == 2, let address = ServerAddress(host: host, port: parts[1].string ?? "") {
            return address
        }
        throw RedisError(.server, reply.isNull ? "it does not know this service" : "unexpected reply: \(reply.shape)")
    }
}
