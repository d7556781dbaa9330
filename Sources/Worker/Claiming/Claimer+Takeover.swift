import Contract
import JobQueue

/// Taking over entries of other workers, and starting those that were delivered to this one in a lost reply.
extension Claimer {
    /// Takes over entries with expired leases, and handed-back ones, while there are free slots. Scans each pending list to its end.
    func takeOver() async {
        guard !isStopping else { return }
        guard !isTakingOver else {
            // Entries handed back meanwhile may be in a queue that the running pass has already scanned.
            takeOverAgain = true
            return
        }
        isTakingOver = true
        repeat {
            takeOverAgain = false
            await takeOverOnce()
        } while takeOverAgain && !isStopping
        isTakingOver = false
    }

    private func takeOverOnce() async {
        for priority in classes {
            for partition in 0..<consumer.partitions {
                do {
                    guard try await takeOver(partition, priority) else { return }
                } catch {
                    mayHaveLostReply = true
                    // A queue that cannot be read does not prevent scanning the others.
                    guard error.isRejection else { return }
                }
            }
        }
    }

    /// Takes over the entries of one queue.
    /// - Returns: false when no slot is free or the claimer is stopping.
    private func takeOver(_ partition: Int, _ priority: JobClass) async throws(QueueError) -> Bool {
        var cursor = "0-0"
        repeat {
            let count = min(free, Self.readAtOnce)
            guard count > 0, !isStopping else { return false }
            let step = try await consumer.takeOver(partition: partition, priority: priority, cursor: cursor, count: count)
            start(step.entries, leaseExpired: true)
            guard step.cursor != cursor else { return true }
            cursor = step.cursor
        } while cursor != "0-0"
        return true
    }

    // MARK: lost replies

    /// Starts entries that Redis delivered to this consumer in a reply that was lost.
    func startUndelivered() async throws(QueueError) {
        for partition in 0..<consumer.partitions {
            for priority in JobClass.allCases {
                do { try await startUndelivered(partition, priority) } catch {
                    // A key of another type holds no entries of this consumer.
                    guard error.isWrongType else { throw error }
                }
            }
        }
        mayHaveLostReply = false
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
