import Contract
import CoreMetrics
import JobQueue
import Logging
import NIOCore
import Support

/// Claiming one entry, up to the start of its generation.
extension Claimer {
    /// Starts a claim for each entry that fits into a free slot, and puts the others back.
    func start(_ entries: [QueueEntry], leaseExpired: Bool) {
        var excess: [QueueEntry] = []
        for entry in entries where !held.contains(EntryID(entry)) {
            // One blocking read may return entries of several queues, and of a class that was paused meanwhile.
            guard free > 0, !isStopping, !isPaused(entry.priority) else {
                excess.append(entry)
                continue
            }
            held.insert(EntryID(entry))
            claimBegan()
            Task.immediate(executorPreference: consumer.executor) {
                await self.claim(entry, leaseExpired: leaseExpired)
                self.claimEnded()
            }
        }
        if !excess.isEmpty { Task { await self.putBack(excess) } }
    }

    /// Starts the entries of a blocking read. Their partitions are added to `mustTake` if further ones may wait there, for a take serves them by
    /// tenant; after a single entry another blocking read is enough, which saves the take.
    func received(_ entries: [QueueEntry]) async {
        guard !entries.isEmpty else { return }
        start(entries, leaseExpired: false)
        let isFull = unrequested <= 0
        let queues = Dictionary(grouping: entries, by: \.queue).filter { isFull || $0.value.count > 1 }.keys
        guard !queues.isEmpty else { return }
        await waitForReplies()
        mustTake.formUnion(queues.map(\.partition))
    }

    /// How long `waitForReplies` waits. Claims take longer when Redis refuses them.
    private static let replyPatience = TimeAmount.milliseconds(5)

    /// Waits until no claim is in progress, for at most `replyPatience`. Redis sends the reply to a claim only after it has executed the commands
    /// behind it, so a take that follows a claim at once delays the start of the job.
    func waitForReplies() async {
        let timer = consumer.eventLoop.scheduleTask(in: Self.replyPatience) { self.assumeIsolated { $0.stopWaitingForReplies() } }
        await withCheckedContinuation { continuation in
            // Claims may end before this body runs.
            if openClaims == 0 { continuation.resume() } else { waitingForReplies.append(continuation) }
        }
        timer.cancel()
    }

    func stopWaitingForReplies() {
        for continuation in waitingForReplies { continuation.resume() }
        waitingForReplies = []
    }

    func pause(_ time: TimeAmount) async {
        await withCheckedContinuation { continuation in
            _ = consumer.eventLoop.scheduleTask(in: time) { continuation.resume() }
        }
    }

    /// Returns unclaimed entries to their queues.
    private func putBack(_ entries: [QueueEntry]) async {
        do { try await consumer.putBack(entries) } catch {
            // They stay pending for this consumer until `startUndelivered` finds them or their lease expires.
            mayHaveLostReply = true
        }
    }

    /// Claims one entry and passes the job to the generation pool. Releases the slot when the job does not run here.
    private func claim(_ entry: QueueEntry, leaseExpired: Bool) async {
        let job: Job
        do {
            job = try await read(entry)
        } catch {
            await reject(entry, error)
            return releaseSlot(of: entry)
        }
        claiming[job.id] = .some(nil)
        let outcome = await claimWithRetries(job, entry, leaseExpired: leaseExpired)
        let earlier: [LoggedEvent]
        if case .claimed(let claim) = outcome, claim.attempt > 1 {
            metrics.takeovers.increment()
            earlier = await log(of: job.id)
        } else {
            earlier = []
        }
        let interrupt = claiming.removeValue(forKey: job.id) ?? nil
        if case .ended(let code) = outcome {
            metrics.endedAtClaim(code)
            logger.info(
                "job ended before it ran",
                metadata: job.logMetadata(["state": code == nil ? "interrupted" : "failed", "code": "\(code?.rawValue ?? "")"]))
        }
        guard case .claimed(let claim) = outcome else { return releaseSlot(of: entry) }
        metrics.claims.increment()
        if claim.attempt == 1 { metrics.waited(claim) }
        pool.begin(claim, earlier: earlier, interrupt: interrupt) { self.slotChanged($0, of: entry) }
    }

    /// Maximum bytes of a job that is parsed on the event loop. Larger ones would delay the claims and interrupts of others.
    private static let parsedOnLoop = 32 << 10

    /// Parses the job of an entry.
    /// - Throws: `JobError` when the field is missing, the job is invalid or the entry is in the wrong partition.
    private func read(_ entry: QueueEntry) async throws(JobError) -> Job {
        guard let bytes = entry.job else { throw JobError(id: nil, reason: "the queue entry has no field \"job\"") }
        var job = bytes.count > Self.parsedOnLoop ? try await Self.parse(bytes) : try Job(parsing: bytes)
        // The class of the queue takes precedence over the one in the job.
        job.priority = entry.priority
        let partition = consumer.partition(of: job.id)
        guard partition == entry.partition else {
            throw JobError(
                id: job.id, reason: "the job is in partition \(entry.partition), but its id belongs to partition \(partition)")
        }
        return job
    }

    /// Parses a job on another thread.
    @concurrent
    private static func parse(_ bytes: [UInt8]) async throws(JobError) -> Job { try Job(parsing: bytes) }

    /// Ends an entry that is not a valid job. An entry in the wrong partition is moved to the dead letters.
    private func reject(_ entry: QueueEntry, _ error: JobError) async {
        metrics.rejected.increment()
        logger.warning(
            "an entry of a queue was rejected",
            metadata: ["entry": "\(entry.id)", "job": "\(error.id?.rawValue ?? "?")", "reason": "\(error.reason)"])
        let misplaced = error.id.map { consumer.partition(of: $0) != entry.partition } ?? false
        do {
            try await consumer.reject(entry, id: error.id, message: error.reason, toDeadLetters: misplaced)
            if misplaced { metrics.deadLettered(.invalidRequest) }
        } catch {
            // The entry stays pending for this consumer and is processed again.
            mayHaveLostReply = true
        }
    }

    /// Runs the claim script, retrying until there is a reply. Repeating it is safe: the script recognizes this process by its token.
    /// - Returns: `busy` when no reply arrived for one lease and 1 s; other workers may take the entry then.
    private func claimWithRetries(_ job: Job, _ entry: QueueEntry, leaseExpired: Bool) async -> ClaimOutcome {
        let lease = (consumer.settings.lease + .seconds(1)).timeoutNanoseconds
        let begun = clock()
        var tries = 0
        while clock() - begun < lease {
            do {
                let outcome = try await consumer.claim(
                    job, entry: entry, leaseExpired: leaseExpired, knownAttempt: pool.knownAttempt(of: job.id))
                claimErrors.recovered(logger)
                return outcome
            } catch {
                tries += 1
                if error.isRejection { claimErrors.failed(error, logger) }
                mayHaveLostReply = true
                let bound = Backoff.bound(from: .milliseconds(50), to: .milliseconds(800), attempt: tries)
                await pause(TimeAmount(max(.milliseconds(10), bound * Double.random(in: 0...1))))
            }
        }
        return .busy
    }

    /// Reads the event log of earlier attempts; empty after 20 failed reads.
    private func log(of id: JobID) async -> [LoggedEvent] {
        for _ in 0..<20 {
            do { return try await consumer.log(of: id) } catch { await pause(.milliseconds(100)) }
        }
        return []
    }
}
