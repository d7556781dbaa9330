import Contract
import CoreMetrics
import CurlTransport
import DequeModule
import JobQueue
import Logging
import Support

/// What the pool reads of single jobs in Redis: renewals, comparisons, interrupt keys, hand-backs.
extension GenerationPool {
    /// The lease renewals of all running jobs, and of recently ended ones that were not compared with Redis on the current connection.
    func renewals() -> [LeaseRenewal] {
        forgetOld()
        return generations.values.map(renewal(of:)) + ended.filter { isOutdated($0.generation) }.map { $0.generation.renewal }
    }

    /// A renewal that costs no more than needed: without a comparison of the log, and without progress that the record holds, unless Redis may
    /// have lost data since.
    private func renewal(of generation: Generation) -> LeaseRenewal {
        var renewal = generation.renewal
        guard !isOutdated(generation) else { return renewal }
        renewal.readsLog = false
        renewal.leaseScore = generation.leaseScore
        if let recorded = generation.recorded, recorded.connection == generation.connection, recorded.progress == renewal.progress {
            renewal.progress = JobProgress()
        }
        return renewal
    }

    /// Whether a job was not compared with Redis on the current connection.
    private func isOutdated(_ generation: Generation) -> Bool {
        generation.connection != consumer.connections(partition: generation.claim.entry.partition)
    }

    /// Applies the replies of a renewal: interrupts jobs with an interrupt key, stops lost ones, writes again what Redis has lost.
    /// - Parameter connection: the number of the connection before the renewal was sent.
    func apply(_ reports: [(LeaseRenewal, LeaseReport)], connection: Int) {
        var ended: [JobID: Generation] = [:]
        for entry in self.ended where isOutdated(entry.generation) { ended[entry.generation.id] = entry.generation }
        for (renewal, report) in reports {
            if let generation = generations[renewal.id], generation.claim.attempt == renewal.attempt {
                apply(report, renewal, to: generation, connection: connection)
            } else if let generation = ended[renewal.id], generation.claim.attempt == renewal.attempt,
                let log = report.comparison(on: connection, endedOn: generation.connection)
            {
                generation.connection = connection
                if report.answer != .lost { reopen(generation, newest: log.newest) }
            }
        }
    }

    private func apply(_ report: LeaseReport, _ renewal: LeaseRenewal, to generation: Generation, connection: Int) {
        switch report.answer {
        case .lost:
            // A job that is ending may have ended meanwhile; the reply to its terminal event decides. One that is over waits for replicas.
            if generation.isLive { removeLost(generation) }
            return
        case .kept: break
        case .interrupted(let interrupt): generation.interrupted(interrupt, receivedAt: loop.now)
        }
        generation.heldAt = loop.now
        generation.leaseScore = report.leaseScore
        if renewal.progress != JobProgress() { generation.recorded = (renewal.progress, connection) }
        if let log = report.log { generation.renewed(newest: log.newest, written: renewal.written, on: connection) }
    }

    /// Runs an ended job again that Redis has running, to write its end again.
    private func reopen(_ generation: Generation, newest: EventID?) {
        guard generations[generation.id] == nil else { return }
        removeFromEnded(generation)
        generations[generation.id] = generation
        context.logger.warning("Redis has lost the end of a job; it is written again", metadata: generation.claim.job.logMetadata)
        generation.reopen(newest: newest)
    }

    /// Reads what Redis holds of a job, after a lost or refused write or a reconnect.
    func validate(_ generation: Generation) {
        guard !generation.isValidating else { return }
        generation.isValidating = true
        // The first read is immediate, because a fenced attempt must stop now. Later ones are delayed up to about 1 s: Redis rejects
        // writes.
        let failures = generation.failedWrites
        let wait = Duration.milliseconds(failures <= 1 ? 0 : min(1_000, 10 << min(failures, 7)))
        let (id, attempt) = (generation.id, generation.claim.attempt)
        _ = loop.schedule(after: wait) {
            Task { await self.validate(id, attempt: attempt) }
        }
    }

    private func validate(_ id: JobID, attempt: Int) async {
        guard let generation = generations[id], generation.claim.attempt == attempt else { return }
        let connection = consumer.connections(partition: generation.claim.entry.partition)
        let (report, log): (LeaseReport, LogState)
        do {
            guard let only = try await consumer.validate([generation.renewal]).first, let state = only.log else {
                generation.isValidating = false
                return generation.replyLost()
            }
            (report, log) = (only, state)
        } catch {
            generation.isValidating = false
            guard generation.stage != .over else { return }
            return generation.replyLost()
        }
        generation.isValidating = false
        generation.leaseScore = report.leaseScore
        guard generations[id] === generation, generation.stage != .over else { return }
        if case .lost = report.answer {
            if !generation.output.isEnding(log.newest) { return removeLost(generation) }
        } else {
            generation.heldAt = loop.now
        }
        if case .interrupted(let interrupt) = report.answer { generation.interrupted(interrupt, receivedAt: loop.now) }
        generation.validated(newest: log.newest, on: connection)
    }

    /// Ends a lost job if Redis has neither its record nor its queue entry. No worker would claim such a job again, and its readers would wait
    /// forever. Waits one renewal interval first, because a gateway that has lost the reply to the job's submission repeats it in this time.
    /// Retries every 200 ms after errors, but only for one lease after `heldAt`: later the job may have run and ended on another worker.
    /// - Parameter heldAt: see `Generation.heldAt`.
    func endIfGone(_ claim: Claim, heldAt: UInt64) async {
        await pause(consumer.settings.renewalInterval)
        while loop.now &- heldAt < consumer.settings.lease.timeoutNanoseconds, generations[claim.job.id] == nil {
            do { return try await consumer.endIfGone(claim) } catch {
                context.logger.debug(
                    "a lost job could not be looked up; it is repeated", metadata: claim.job.logMetadata(["error": "\(error)"]))
                await pause(.milliseconds(200))
            }
        }
    }

    /// Reads the audio of a job's user message, retrying every 200 ms while Redis is unreachable.
    func readAudio(of id: JobID) async {
        while let generation = generations[id], generation.stage == .running {
            do {
                return generation.audioRead(try await consumer.audio(of: id))
            } catch {
                await pause(.milliseconds(200))
            }
        }
    }

    /// Reads the interrupt key, retrying every 200 ms while Redis is unreachable.
    func checkInterrupt(of id: JobID) async {
        while let generation = generations[id], generation.stage != .over {
            do {
                return generation.interruptChecked(try await consumer.interrupt(of: id))
            } catch {
                // Redis is unreachable, which its connection logs. No request is sent without this check; if the lease expires first, the
                // job is handed back.
                await pause(.milliseconds(200))
            }
        }
    }

    private static let spoiltQueue = "the Redis key of the job's queue has the wrong type; another program may have overwritten it"

    /// Hands a job back, retrying every 200 ms. Ends a job whose queue was overwritten.
    func handBack(_ id: JobID) async {
        while let generation = generations[id], generation.canBeHandedBack {
            do {
                let isHandedBack = try await consumer.handBack(generation.renewal, startsAgain: generation.hasLostOutput)
                context.logger.info(
                    isHandedBack ? "job handed back" : "job was taken over before it could be handed back",
                    metadata: generation.claim.job.logMetadata)
                context.metrics.handBacks.increment()
                generation.close()
                return remove(generation)
            } catch {
                // There is no queue to which the job could be returned.
                if error.isWrongType { return generation.end(.failed(Failure(.internal, Self.spoiltQueue), generation.usage)) }
                context.logger.debug(
                    "the hand-back of a job failed; it is repeated", metadata: generation.claim.job.logMetadata(["error": "\(error)"]))
                await pause(.milliseconds(200))
            }
        }
    }

    func pause(_ duration: Duration) async {
        await withCheckedContinuation { continuation in
            _ = loop.schedule(after: duration) { continuation.resume() }
        }
    }
}

extension LeaseReport {
    /// The log of a job that has ended, if this report says whether Redis has the end; otherwise nil. A renewal that was sent while the job ran
    /// may be answered after the end: it did not read the log, or is older than the end.
    /// - Parameters:
    ///   - connection: the number of the connection before the renewal was sent.
    ///   - end: the number of the connection on which the job ended.
    func comparison(on connection: Int, endedOn end: Int) -> LogState? { connection != end ? log : nil }
}
