import Contract
import RedisClient

/// What the readers of a followed job have, to be compared with Redis.
struct JobLook: Sendable {
    let id: JobID
    /// The last event that every reader has; nil for none.
    let after: EventID?
    /// The record's field `entry`; nil while unknown.
    let entry: String?
}

/// The result of a comparison. Jobs that need nothing are in none of the lists.
struct LookResult: Sendable {
    /// Jobs with events that a reader lacks, and the first of these events.
    var news: [(id: JobID, first: EventID)] = []
    /// Jobs without record and log.
    var gone: [JobID] = []
    /// Jobs whose queue entry was deleted with its queue, or by trimming.
    var unlisted: [JobID] = []
    /// Entries that were unknown.
    var entries: [(id: JobID, entry: String)] = []
}

/// Determines when a job without new events is looked at. Counts checks of the feed.
///
/// The intervals grow up to `longest`, so that a job that has been silent for a while costs little, and what was lost is still found soon.
struct LookTimer {
    /// Maximum number of checks between two looks.
    static let longest = 4
    /// Silent checks before the queue entry is checked for the first time; then again after twice as many, and so on.
    private static let firstEntryCheck = 64
    /// The same for the review of the log's end.
    private static let firstReview = 8

    private var silentChecks = 0
    private var interval = 1
    private var nextLook = 1

    /// Counts a check of the feed.
    /// - Parameter hasNews: whether something arrived since the last check.
    /// - Returns: whether a look is due.
    mutating func isDue(hasNews: Bool) -> Bool {
        guard !hasNews else {
            self = LookTimer()
            return false
        }
        silentChecks += 1
        guard silentChecks >= nextLook else { return false }
        interval = min(2 * interval, Self.longest)
        nextLook = silentChecks + interval
        return true
    }

    /// Whether the queue entry is to be checked by itself at this check.
    var checksEntry: Bool { isReached(Self.firstEntryCheck) }

    /// Whether the end of the log is to be reviewed at this check.
    var reviewsLog: Bool { isReached(Self.firstReview) }

    /// Whether this silent check is the one with this number, or with this number times a power of two.
    private func isReached(_ first: Int) -> Bool { silentChecks.isMultiple(of: first) && (silentChecks / first).nonzeroBitCount == 1 }
}

extension JobProducer {
    /// Compares jobs of one partition with their logs, records and queues in one call. Nothing is changed.
    func look(at jobs: [JobLook], partition: Int) async throws(RedisError) -> LookResult {
        guard !jobs.isEmpty else { return LookResult() }
        var arguments: [RedisArgument] = []
        for job in jobs {
            arguments.append(.string(job.after?.description ?? "0-0"))
            arguments.append(.string(job.entry ?? ""))
        }
        let reply = try await redis.run(
            Scripts.look, keys: keys.queues(partition: partition) + jobs.map { keys.log($0.id) } + jobs.map { keys.record($0.id) },
            arguments: arguments)
        guard let lists = reply.array, lists.count == 4 else { throw redis.misfit(reply, to: "the look script") }
        func job(_ number: RESPValue) -> JobID? {
            guard let number = number.integer, (1...jobs.count).contains(number) else { return nil }
            return jobs[number - 1].id
        }
        var result = LookResult()
        for (number, event) in lists[0].pairs {
            if let id = job(number), let first = event.string.flatMap({ EventID($0) }) { result.news.append((id, first)) }
        }
        result.gone = (lists[1].array ?? []).compactMap(job)
        result.unlisted = (lists[2].array ?? []).compactMap(job)
        for (number, entry) in lists[3].pairs {
            if let id = job(number), let entry = entry.string { result.entries.append((id, entry)) }
        }
        return result
    }
}
