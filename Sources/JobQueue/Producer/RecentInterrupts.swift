import Contract
import DequeModule
import NIOCore
import RedisClient
import Synchronization

/// The interrupts that Redis has acknowledged in the last minute. If a primary dies before a replica has received an interrupt, the interrupt is
/// lost. Its job, if it waits, would then run without a reader. After each reconnect a gateway asks Redis for these interrupts and sends the
/// missing ones again.
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

        /// The same interrupt, found in Redis on a later connection. Another fail-over may still lose it.
        func confirmed(on connection: Int) -> Sent {
            Sent(interrupt, owner: owner, isForced: isForced, connection: connection, at: at)
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

    /// Sends those interrupts of the last minute again that were acknowledged on earlier connections and that Redis has lost. Those that fail are
    /// sent at the next call.
    /// - Returns: the jobs that were interrupted again.
    func repeatInterrupts() async -> [JobID] {
        let connections = (0..<keys.partitions).map { connection(partition: $0) }
        func current(_ sent: RecentInterrupts.Sent) -> Int { connections[keys.partition(of: sent.interrupt.id.rawValue)] }
        let outdated = recentInterrupts.take(at: .now()) { current($0) != $0.connection }
        guard !outdated.isEmpty else { return [] }
        var lost: [RecentInterrupts.Sent] = []
        do {
            var pipeline = RedisPipeline()
            for sent in outdated { pipeline.append("EXISTS", .string(keys.interrupt(sent.interrupt.id))) }
            let replies = try await redis.send(pipeline)
            for (sent, reply) in zip(outdated, replies) {
                // The script that writes the key also ends a waiting job, so that Redis has lost both or none.
                switch reply.integer {
                case 1: recentInterrupts.add(sent.confirmed(on: current(sent)))
                case 0: lost.append(sent)
                // A shard that is not reachable must not delay the others' interrupts.
                default: recentInterrupts.add(sent)
                }
            }
        } catch {
            // Redis is unavailable, which its connection has logged.
            for sent in outdated { recentInterrupts.add(sent) }
        }
        var repeated: [JobID] = []
        for sent in lost {
            do {
                let answer = try await interrupt(sent.interrupt, owner: sent.owner, force: sent.isForced)
                if answer.stored { repeated.append(sent.interrupt.id) }
            } catch { recentInterrupts.add(sent) }
        }
        return repeated
    }
}
