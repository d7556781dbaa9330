import Contract
import JobQueue
import Logging
import NIOCore
import Support

/// Waiting for jobs in a cluster, where a command reads one partition: each partition has a blocking read of its own.
extension Claimer {
    /// Timeout of one blocking read in milliseconds. It grows with their number, so that an idle worker sends at most 10 per second.
    private var blockedMilliseconds: Int { max(Self.waitMilliseconds, consumer.partitions * 100) }

    /// Begins the reads that are not in progress, and waits until one of them ends: with entries, which it has started, or with an error.
    func waitInPartitions() async {
        for partition in 0..<consumer.partitions where !blockedReads.contains(partition) && consumer.isReachable(partition: partition) {
            blockedReads.insert(partition)
            Task.immediate(executorPreference: consumer.executor) { await self.readBlocked(partition) }
        }
        await withCheckedContinuation { continuation in
            // Other calls may run on the actor before this body does, so a check outside of it would be too early.
            if hasReadEnded || !mustTake.isEmpty || isStopping { continuation.resume() } else { waitingForReads.append(continuation) }
        }
        hasReadEnded = false
    }

    /// Reads one partition until there are entries. Full workers and those without classes begin no further read, nor do those that are to take
    /// entries first.
    private func readBlocked(_ partition: Int) async {
        while !isStopping, mustTake.isEmpty, unrequested > 0, !classes.isEmpty, consumer.isReachable(partition: partition) {
            do {
                let entries = try await consumer.wait(
                    partition: partition, classes: classes, excluding: Set(unreadable.keys),
                    count: waitedAtOnce, milliseconds: blockedMilliseconds)
                await received(entries)
                let excluded = unreadable.keys.count { $0.partition == partition }
                // With every queue excluded the read returned at once.
                if excluded >= classes.count { await pause(.milliseconds(Int64(Self.waitMilliseconds))) }
                // Unreadable queues are looked at again.
                if excluded > 0 { mustTake.insert(partition) }
            } catch {
                uncertain.insert(partition)
                await recover(from: error, failures: 1)
                break
            }
        }
        blockedReads.remove(partition)
        readEnded()
    }

    /// Resumes `waitInPartitions`. Also called after a connect, when partitions may be reachable that were not.
    func readEnded() {
        hasReadEnded = waitingForReads.isEmpty
        wakeReads()
    }

    func wakeReads() {
        for continuation in waitingForReads { continuation.resume() }
        waitingForReads = []
    }

    /// Ends the blocking reads after `stop`. Entries that Redis has delivered meanwhile are put back.
    func endReads() async {
        guard consumer.isCluster else { return }
        consumer.stopWaiting()
        while !blockedReads.isEmpty {
            await withCheckedContinuation { continuation in
                if blockedReads.isEmpty { continuation.resume() } else { waitingForReads.append(continuation) }
            }
        }
        do { try await startUndelivered() } catch {
            logger.debug("delivered entries could not be put back; their leases expire", metadata: ["error": "\(error)"])
        }
    }
}
