import Contract
import Logging
import NIOCore
import RedisClient
import Support

/// Periodic comparisons with Redis: they find what no message reveals.
extension EventFeed {
    /// Interval between checks. A lost terminal event is found within two of them, and within `LookTimer.longest` + 1 when the job has been
    /// silent before.
    package static let checkInterval = TimeAmount.milliseconds(900)
    /// Consecutive checks without log and record after which a job counts as lost (Redis was flushed or restarted without its data).
    /// Together they take longer than a submission in progress.
    private static let maximumAbsences = 8
    /// The same for a job that Redis had before. With the longest interval between looks, its readers get the failure within 10 s.
    private static let maximumAbsencesOfKnown = 5
    /// Maximum number of jobs per look.
    private static let lookBatch = 500

    func scheduleCheck() {
        guard !isCheckScheduled else { return }
        isCheckScheduled = true
        eventLoop.scheduleTask(in: Self.checkInterval) { self.assumeIsolated { $0.check() } }
    }

    private func check() {
        isCheckScheduled = false
        guard !jobs.isEmpty, !isEnded else { return }
        scheduleCheck()
        // The last check waits for Redis.
        guard !isChecking else { return }
        var compared: [JobID] = []
        var looks: [Int: [JobID]] = [:]
        var entries: [JobID] = []
        var reviewed: [JobID] = []
        // A shard that is not reachable must not delay the checks of the others' jobs.
        for (id, job) in jobs where queue.isReachable(id) {
            let isDue = job.timer.isDue(hasNews: job.hasNews)
            if job.mustCompare, !job.hasNews {
                compared.append(id)
            } else if isDue {
                looks[queue.keys.partition(of: id.rawValue), default: []].append(id)
            }
            job.hasNews = false
            if job.timer.checksEntry { entries.append(id) }
            if job.timer.reviewsLog { reviewed.append(id) }
        }
        guard !compared.isEmpty || !looks.isEmpty || !entries.isEmpty || !reviewed.isEmpty else { return }
        isChecking = true
        start { [compared, looks, entries, reviewed] feed in
            await feed.compare(compared)
            for (partition, ids) in looks {
                for start in stride(from: 0, to: ids.count, by: Self.lookBatch) {
                    await feed.look(at: Array(ids[start..<min(start + Self.lookBatch, ids.count)]), partition: partition)
                }
            }
            await feed.endJobsWithoutEntry(entries)
            await feed.review(reviewed)
            feed.isChecking = false
        }
    }

    /// Looks at silent jobs of one partition: reads the events that a reader lacks, and compares jobs that seem to be lost.
    private func look(at ids: [JobID], partition: Int) async {
        let looks = ids.compactMap { id in jobs[id].map { JobLook(id: id, after: $0.last, entry: $0.entry) } }
        let found: LookResult
        do { found = try await queue.look(at: looks, partition: partition) } catch {
            return logger.debug("silent jobs could not be compared; the next look repeats it", metadata: ["error": "\(error)"])
        }
        for (id, entry) in found.entries { jobs[id]?.entry = entry }
        for (id, first) in found.news {
            guard let job = jobs[id] else { continue }
            for follower in job.followers where follower.sequence.last.map({ $0 < first }) ?? true {
                act(follower.sequence.suspect(), on: id, follower)
            }
        }
        let gone = Set(found.gone)
        for look in looks where !gone.contains(look.id) { jobs[look.id]?.isKnown = true }
        for id in found.gone { jobs[id]?.mustCompare = true }
        await compare(found.gone)
        await endJobsWithoutEntry(found.unlisted)
    }

    /// Ends jobs whose queue entries are gone.
    private func endJobsWithoutEntry(_ ids: [JobID]) async {
        guard !ids.isEmpty else { return }
        let entries = ids.map { id in
            (id: id, entry: jobs[id]?.entry, attempt: jobs[id]?.followers.compactMap(\.sequence.last?.attempt).max() ?? 0)
        }
        // An entry may have been replaced by a hand-back; the next look reads it again.
        for id in ids { jobs[id]?.entry = nil }
        do { try await queue.endJobsWithoutEntry(entries) } catch {
            logger.debug("queue entries could not be checked; a later check retries", metadata: ["error": "\(error)"])
        }
    }

    /// Maximum number of jobs per round trip.
    private static let compareBatch = 500

    /// Arranges that jobs are compared whose logs end below what a reader has: another program has changed them, and looks find only what is
    /// above.
    private func review(_ ids: [JobID]) async {
        for start in stride(from: 0, to: ids.count, by: Self.compareBatch) {
            let some = Array(ids[start..<min(start + Self.compareBatch, ids.count)])
            // Redis is unavailable, which its connection has logged. A later review finds the same.
            guard let newest = try? await queue.lastEvents(some) else { return }
            for case (let id, let newest?) in zip(some, newest) {
                guard let job = jobs[id] else { continue }
                if job.followers.contains(where: { $0.sequence.last.map { $0 > newest } ?? false }) { job.mustCompare = true }
            }
        }
    }

    /// Compares jobs one by one with the last events in their logs and reads the events that are missing.
    private func compare(_ ids: [JobID]) async {
        for start in stride(from: 0, to: ids.count, by: Self.compareBatch) {
            let some = Array(ids[start..<min(start + Self.compareBatch, ids.count)])
            // Redis is unavailable, which its connection has logged. The next check retries.
            guard let newest = try? await queue.lastEvents(some) else { return }
            let absent = zip(some, newest).filter { $0.1 == nil }.map(\.0)
            if !absent.isEmpty { await checkRecords(absent) }
            for (id, newest) in zip(some, newest) {
                guard let newest, let job = jobs[id] else { continue }
                job.absences = 0
                job.isKnown = true
                // A reader at the newest id may have another event with this id.
                let isAtEnd = job.followers.contains { $0.sequence.last.map { $0 >= newest } ?? false }
                job.mustCompare = job.followers.contains { $0.sequence.mustCompare || $0.sequence.last.map { $0 > newest } ?? false }
                for follower in job.followers where follower.sequence.mustCompare || follower.sequence.last.map({ $0 < newest }) ?? true {
                    act(follower.sequence.suspect(), on: id, follower)
                }
                if isAtEnd { await endIfOver(id) }
            }
        }
    }

    /// Delivers the terminal event to readers that have an event with its id, or later ones: Redis has come back with older data, in which the job
    /// has ended.
    func endIfOver(_ id: JobID) async {
        // Redis is unavailable, which its connection has logged. The next check retries.
        guard let newest = try? await queue.lastEvent(id), newest.event.isTerminal else { return }
        for follower in jobs[id]?.followers ?? [] { deliver(follower.sequence.end(with: newest), of: id, to: follower) }
    }

    /// Checks whether jobs without a log have a record. A queued job has a record and no log yet; a job without either is lost, so its
    /// readers receive a `failed` event.
    private func checkRecords(_ ids: [JobID]) async {
        guard let known = try? await queue.areKnown(ids) else { return }
        var lost: [JobID] = []
        for (id, isKnown) in zip(ids, known) {
            guard let job = jobs[id] else { continue }
            job.absences = isKnown ? 0 : job.absences + 1
            // A reader with events of a job without a log has later ones than Redis.
            job.mustCompare = !isKnown || job.followers.contains { $0.sequence.last != nil }
            if isKnown { job.isKnown = true }
            guard job.absences >= (job.isKnown ? Self.maximumAbsencesOfKnown : Self.maximumAbsences) else { continue }
            logger.error("job lost in Redis: no record and no event log", metadata: ["job": "\(id)"])
            for follower in job.followers { deliver(follower.sequence.lost(), of: id, to: follower) }
            lost.append(id)
        }
        if !lost.isEmpty { start { [lost] feed in await feed.interrupt(lost) } }
    }

    /// Interrupts jobs that were reported as lost: clients send them again, so they must not run as well. Their queue entries, or a worker that
    /// runs them, may be left.
    private func interrupt(_ ids: [JobID]) async {
        for id in ids {
            do { _ = try await queue.forceInterrupt(id, reason: InterruptReason.clientGone) } catch {
                logger.warning("a lost job could not be interrupted", metadata: ["job": "\(id)", "error": "\(error)"])
            }
        }
    }
}
