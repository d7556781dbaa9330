import Contract
import JobQueue
import Logging

/// Taking over entries of other workers, and starting those that were delivered to this one in a lost reply.
extension Claimer {
    /// Takes over entries with expired leases and returned ones, and takes waiting ones, while there are free slots. Called for all partitions at
    /// every renewal interval, and for one when another worker has announced entries.
    func takeOver(_ partitions: Set<Int>) async {
        guard !isStopping else { return }
        // An announcement that comes while no slot is free is remembered.
        if unrequested <= 0, partitions.count == 1 { mustTake.formUnion(partitions) }
        // Entries returned meanwhile may be in a partition that the running pass has already looked at.
        toTakeOver.formUnion(partitions)
        guard !isTakingOver else { return }
        isTakingOver = true
        while !toTakeOver.isEmpty, !isStopping {
            let partitions = toTakeOver
            toTakeOver = []
            await takeOverOnce(await withEntries(partitions))
        }
        isTakingOver = false
    }

    /// Those of some partitions in which there may be entries to take over. A single one is not asked.
    private func withEntries(_ partitions: Set<Int>) async -> Set<Int> {
        guard partitions.count > 1 else { return partitions }
        do {
            let found = try await consumer.partitionsWithEntries(partitions)
            if partitions.count == consumer.partitions { hasFoundEntries = !found.isEmpty }
            return found
        } catch {
            logger.debug("the partitions with entries could not be read", metadata: ["error": "\(error)"])
            return []
        }
    }

    private func takeOverOnce(_ partitions: Set<Int>) async {
        // A class has priority over the next one across all partitions; in a single one the script sees to that.
        for some in consumer.partitions > 1 ? classes.map({ [$0] }) : [classes] {
            for partition in rotated(partitions) {
                // A server that is not reachable must not delay the others.
                guard consumer.isReachable(partition: partition) else { continue }
                do {
                    while !isStopping, unrequested > 0, case let unpaused = some.filter({ !isPaused($0) }), !unpaused.isEmpty {
                        guard try await take(from: partition, unpaused, Self.takenAtOnce) > 0 else { break }
                        mustTake.insert(partition)
                    }
                } catch {
                    mayHaveLostReply = true
                    mustTake = allPartitions
                    // A partition that cannot be read does not prevent reading the others.
                    guard error.isRejection || consumer.isCluster else { return }
                }
            }
        }
    }

    /// Ends interrupted jobs of lost workers, when no slot is free to take them over.
    func endInterrupted() async {
        guard !isStopping, free <= 0 else { return }
        do {
            let count = try await consumer.endInterrupted()
            for _ in 0..<count { metrics.endedAtClaim(nil) }
        } catch {
            logger.debug("interrupted jobs of lost workers could not be ended", metadata: ["error": "\(error)"])
        }
    }

    // MARK: lost replies

    /// Starts entries that Redis delivered to this consumer in a reply that was lost.
    func startUndelivered() async throws(QueueError) {
        for partition in uncertain.sorted() where consumer.isReachable(partition: partition) {
            for priority in JobClass.allCases {
                do { try await startUndelivered(partition, priority) } catch {
                    // A key of another type holds no entries of this consumer.
                    guard error.isWrongType else { throw error }
                }
            }
            uncertain.remove(partition)
        }
    }

    private func startUndelivered(_ partition: Int, _ priority: JobClass) async throws(QueueError) {
        var after = "0"
        while true {
            let page = try await consumer.undelivered(partition: partition, priority: priority, after: after, count: Self.readAtOnce)
            guard let last = page.last, last.id != after else { return }
            after = last.id
            start(page.filter { !held.contains(EntryID($0)) }, leaseExpired: false)
        }
    }
}
