/// The address of a server, as a sentinel announces it.
struct ServerAddress: Sendable, Hashable, CustomStringConvertible {
    /// A name or an IP address, without brackets.
    let host: String
    /// 1 to 65535.
    let port: Int

    init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    /// Nil for an empty host or a port that is not a number from 1 to 65535.
    init?(host: String, port: String) {
        guard !host.isEmpty, let port = Int(port), (1...65_535).contains(port) else { return nil }
        self.init(host: host, port: port)
    }

    var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// Counts the sentinels' answers to the question for the primary. A state machine without I/O.
///
/// A sentinel that was partitioned from the others may name the former primary, so the address with most answers counts. A majority of all
/// sentinels is enough. Otherwise the rest is waited for, until each has answered or failed, or the time is over.
struct PrimaryVotes {
    enum Outcome: Equatable {
        case undecided
        case primary(ServerAddress)
        /// No sentinel has named a primary.
        case none(RedisError)
    }

    private let service: String
    private let sentinels: Int
    private var answers = 0
    /// In the order of the first answer with each address.
    private var votes: [(address: ServerAddress, count: Int)] = []
    /// The most serious failure so far: an answer that an operator must act upon before one that may pass.
    private var failure: RedisError?

    init(service: String, sentinels: Int) {
        self.service = service
        self.sentinels = sentinels
    }

    /// Counts the answer of one sentinel.
    mutating func answered(_ result: Result<ServerAddress, RedisError>) -> Outcome {
        answers += 1
        switch result {
        case .success(let address):
            if let index = votes.firstIndex(where: { $0.address == address }) {
                votes[index].count += 1
                if votes[index].count * 2 > sentinels { return .primary(address) }
            } else {
                votes.append((address, 1))
                if sentinels == 1 { return .primary(address) }
            }
        case .failure(let error):
            if failure == nil || failure?.code != .server && error.code == .server { failure = error }
        }
        return answers < sentinels ? .undecided : timeIsOver()
    }

    /// Decides by the answers so far. With equal numbers the first answer counts.
    func timeIsOver() -> Outcome {
        var best: (address: ServerAddress, count: Int)?
        for vote in votes where vote.count > best?.count ?? 0 { best = vote }
        if let best { return .primary(best.address) }
        let reason = failure.map { ": \($0)" } ?? " in time"
        return .none(
            RedisError(failure?.code == .server ? .server : .unavailable, "no sentinel has named the primary of \"\(service)\"\(reason)"))
    }
}
