import Contract
import DequeModule
import NIOCore
import RedisClient
import Synchronization

/// The interrupts that Redis has acknowledged in the last minute, which are sent again after a reconnect. A primary that dies takes those with
/// it that no replica has received, and a waiting job would then run although nobody reads its output. Sending an interrupt twice has no effect.
///
/// Thread-safe.
final class RecentInterrupts: Sendable {
    struct Sent: Sendable {
        let interrupt: Interrupt
        let owner: String?
        let isForced: Bool
        /// See `JobProducer.connection(partition:)`.
        let connection: Int
        let at: NIODeadline

        init(_ interrupt: Interrupt, owner: String?, isForced: Bool, connection: Int, at: NIODeadline = .now()) {
            self.interrupt = interrupt
            self.owner = owner
            self.isForced = isForced
            self.connection = connection
            self.at = at
        }
    }

    /// How long they are kept: longer than a fail-over takes.
    static let kept = TimeAmount.seconds(60)
    /// Maximum number; the oldest ones are dropped first.
    static let maximum = 2_000

    private let all = Mutex<Deque<Sent>>([])

    func add(_ sent: Sent) {
        all.withLock { all in
            all.append(sent)
            while let oldest = all.first, all.count > Self.maximum || sent.at - oldest.at > Self.kept { all.removeFirst() }
        }
    }

    /// Removes and returns those that meet the condition, oldest first.
    func take(at now: NIODeadline, where isTaken: (Sent) -> Bool) -> [Sent] {
        all.withLock { all in
            all.removeAll { now - $0.at > Self.kept }
            let taken = all.filter(isTaken)
            all.removeAll(where: isTaken)
            return Array(taken)
        }
    }
}

extension JobProducer {
    /// The number of the connection for a partition. It is read before a command is sent: if the connection changes before the reply, the
    /// command is repeated without need, but never left out.
    func connection(partition: Int) -> Int { redis.connections(for: keys.replicated(partition: partition)) }

    /// Sends the interrupts of the last minute again that were acknowledged on earlier connections. Those that fail are sent at the next call.
    func repeatInterrupts() async {
        let connections = (0..<keys.partitions).map { connection(partition: $0) }
        let outdated = recentInterrupts.take(at: .now()) { sent in
            connections[keys.partition(of: sent.interrupt.id.rawValue)] != sent.connection
        }
        for sent in outdated {
            // Redis is unavailable, which its connection has logged.
            do { _ = try await interrupt(sent.interrupt, owner: sent.owner, force: sent.isForced) } catch { recentInterrupts.add(sent) }
        }
    }
}
