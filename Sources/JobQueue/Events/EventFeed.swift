import Contract
import Logging
import NIOCore
import RedisClient
import Support

/// A handle for one reader of a job's events.
package struct Following: Sendable, Hashable {
    package let id: JobID
    fileprivate let number: UInt64
}

/// Follows the events of jobs for a gateway: live events by pub/sub, gaps filled from the log.
///
/// A lost message with no later event shows no gap; it is found by comparing quiet jobs with their logs periodically. One feed per
/// gateway, on its event loop; all callbacks run on that loop.
package actor EventFeed: PinnedActor {
    /// Interval at which jobs without new events are compared with their logs. A lost terminal event is found within two intervals.
    package static let checkInterval = TimeAmount.milliseconds(900)
    /// Consecutive checks without log and record after which a job counts as lost (Redis was flushed or restarted without its data).
    /// Together they take longer than a submission in progress.
    private static let maximumAbsences = 8
    /// Consecutive checks without new events after which the queue entry of a job is checked, and again after as many. With `checkInterval`,
    /// readers of a job whose entry was deleted get its failure within 10 s.
    private static let checksPerEntryCheck = 5
    /// Timeout of a subscription's confirmation.
    private static let subscribeDeadline = TimeAmount.seconds(5)
    /// A confirmation that takes longer may come after the first events of a job submitted meanwhile, so the log is read once more.
    private static let promptConfirmation = TimeAmount.milliseconds(250)

    /// The state of one reader.
    private final class Follower {
        let number: UInt64
        var sequence: EventSequence
        let receive: @Sendable ([LoggedEvent]) -> Void
        /// Whether a message arrived since the last check.
        var hasNewMessages = true

        init(number: UInt64, after: EventID?, receive: @escaping @Sendable ([LoggedEvent]) -> Void) {
            self.number = number
            sequence = EventSequence(after: after)
            self.receive = receive
        }
    }

    /// A subscription to a job's output channel and its readers.
    private final class FollowedJob {
        let since = NIODeadline.now()
        var followers: [Follower] = []
        var confirmed = false
        var waiting: [EventLoopPromise<Void>] = []
        /// Consecutive checks that found neither a log nor a record.
        var absences = 0
        /// Consecutive checks without new events.
        var quietChecks = 0
    }

    private nonisolated let eventLoop: any EventLoop
    private nonisolated let queue: JobProducer
    private let subscriber: RedisSubscriber
    private let logger: Logger
    private var isCheckingEntries = false
    private var jobs: [JobID: FollowedJob] = [:]
    private var nextNumber: UInt64 = 0
    private var isCheckScheduled = false

    package nonisolated var executor: LoopExecutor { queue.redis.executor }

    /// - Parameters:
    ///   - subscriber: runs on the same event loop.
    package init(queue: JobProducer, subscriber: RedisSubscriber, eventLoop: any EventLoop, logger: Logger) {
        self.queue = queue
        self.subscriber = subscriber
        self.eventLoop = eventLoop
        self.logger = logger
    }

    /// Follows a job that is about to be submitted. The submission need not wait for the subscription: if the first events are published
    /// before it is active, the next event reveals the gap, or the periodic check of the log finds them.
    ///
    /// `receive` runs on the event loop with one or more events: in order, without gaps or duplicates, no event of an older attempt after
    /// one of a newer attempt, no event after a terminal event. The terminal event ends the following automatically.
    package func follow(new id: JobID, receive: @escaping @Sendable ([LoggedEvent]) -> Void) -> Following {
        begin(id, after: nil, receive).following
    }

    /// The same for callers on the event loop, at once and without a task.
    package nonisolated func followOnLoop(new id: JobID, receive: @escaping @Sendable ([LoggedEvent]) -> Void) -> Following {
        assumeIsolated { $0.follow(new: id, receive: receive) }
    }

    /// Follows a job that was submitted earlier, starting with the events in its log. `receive` works as in `follow(new:)`.
    /// - Parameter after: the last event that the receiver has; nil to start from the beginning.
    /// - Throws: `.unavailable` when Redis does not confirm the subscription within 5 s; the job is not followed then.
    package func follow(
        _ id: JobID, after: EventID?, receive: @escaping @Sendable ([LoggedEvent]) -> Void
    ) async throws(RedisError) -> Following {
        let (following, follower, job) = begin(id, after: after, receive)
        if !job.confirmed {
            let promise = eventLoop.makePromise(of: Void.self)
            job.waiting.append(promise)
            let deadline = eventLoop.scheduleTask(in: Self.subscribeDeadline) {
                promise.fail(RedisError(.unavailable, "Redis did not confirm the subscription to a job's events within 5 s"))
            }
            do { try await promise.futureResult.get() } catch {
                remove(following)
                throw error as? RedisError ?? RedisError(.unavailable, "\(error)")
            }
            deadline.cancel()
        }
        act(follower.sequence.suspect(), on: id, follower)
        return following
    }

    private func begin(_ id: JobID, after: EventID?, _ receive: @escaping @Sendable ([LoggedEvent]) -> Void) -> (
        following: Following, follower: Follower, job: FollowedJob
    ) {
        nextNumber += 1
        let follower = Follower(number: nextNumber, after: after, receive: receive)
        let job = jobs[id] ?? subscribe(id)
        job.followers.append(follower)
        scheduleCheck()
        return (Following(id: id, number: nextNumber), follower, job)
    }

    /// Ends a following. Callable from any thread, repeatedly; called on the event loop, no event is delivered afterwards.
    package nonisolated func stop(_ following: Following) {
        if eventLoop.inEventLoop {
            assumeIsolated { $0.remove(following) }
        } else {
            eventLoop.execute { self.assumeIsolated { $0.remove(following) } }
        }
    }

    private func subscribe(_ id: JobID) -> FollowedJob {
        let job = FollowedJob()
        jobs[id] = job
        subscriber.subscribe(queue.keys.out(id)) { [weak self] event in
            self?.assumeIsolated { $0.received(event, of: id) }
        }
        return job
    }

    private func remove(_ following: Following) {
        guard let job = jobs[following.id] else { return }
        job.followers.removeAll { $0.number == following.number }
        guard job.followers.isEmpty else { return }
        jobs[following.id] = nil
        subscriber.unsubscribe(queue.keys.out(following.id))
    }

    private func received(_ event: SubscriptionEvent, of id: JobID) {
        guard let job = jobs[id] else { return }
        switch event {
        case .message(let buffer):
            let events: [LoggedEvent]
            do {
                events = try LoggedEvent.array(parsing: buffer.readableBytesUInt8Span)
            } catch {
                logger.warning(
                    "invalid message on output channel: not an array of events", metadata: ["job": "\(id)", "error": "\(error)"])
                return
            }
            for follower in job.followers {
                follower.hasNewMessages = true
                act(follower.sequence.offer(events), on: id, follower)
            }
        case .subscribed:
            let again = job.confirmed
            job.confirmed = true
            let waiting = job.waiting
            job.waiting = []
            for promise in waiting { promise.succeed() }
            // Events published while the subscription was inactive are in the log.
            if again || NIODeadline.now() - job.since > Self.promptConfirmation {
                if again { for follower in job.followers { follower.sequence.compareFirst() } }
                for follower in job.followers { act(follower.sequence.suspect(), on: id, follower) }
            }
        case .lost: break
        }
    }

    private func act(_ action: EventSequence.Action, on id: JobID, _ follower: Follower) {
        switch action {
        case .deliver(let events): deliver(events, of: id, to: follower)
        case .fill(let after):
            let number = follower.number
            Task { await self.fill(id, number: number, after: after) }
        }
    }

    /// Maximum bytes of a log that are held, and decoded in one turn of the event loop.
    private static let pageSize = 64 << 10

    /// Reads the log after `after` page by page and delivers the missing events.
    private func fill(_ id: JobID, number: UInt64, after: EventID?) async {
        do {
            guard try await isContinued(id, number: number) else {
                follower(id, number)?.sequence.fillFailed()
                return
            }
            let after = follower(id, number)?.sequence.last ?? after
            var page = try await queue.logPage(id, after: after?.description, size: Self.pageSize)
            while !page.isLast, let end = page.end, let follower = follower(id, number) {
                deliver(follower.sequence.filledInPart(page.events), of: id, to: follower)
                page = try await queue.logPage(id, after: end, size: Self.pageSize)
            }
            guard let follower = follower(id, number) else { return }
            deliver(follower.sequence.filled(page.events), of: id, to: follower)
            if follower.sequence.hasGap { act(follower.sequence.suspect(), on: id, follower) }
        } catch {
            // Redis is unavailable, which its connection has logged. The next check retries.
            follower(id, number)?.sequence.fillFailed()
        }
    }

    /// Compares the log with what was delivered, after a reconnect. A job whose attempt another worker has written anew starts again, so that no
    /// reader sees two histories as one.
    /// - Returns: whether the log may be read on.
    private func isContinued(_ id: JobID, number: UInt64) async throws(RedisError) -> Bool {
        guard let sequence = follower(id, number)?.sequence, sequence.mustCompare, let shown = sequence.shown else { return true }
        let (logged, newest) = try await queue.history(id, at: shown.id)
        guard let follower = follower(id, number) else { return false }
        switch follower.sequence.compare(logged: logged, newest: newest) {
        case .continued: return true
        case .behind: return false
        case .rewritten:
            logger.warning("Redis had lost output of a job that was generated again; it starts again", metadata: ["job": "\(id)"])
            try await queue.startAgain(id, attempt: shown.id.attempt)
            return true
        }
    }

    private func follower(_ id: JobID, _ number: UInt64) -> Follower? { jobs[id]?.followers.first { $0.number == number } }

    private func deliver(_ events: [LoggedEvent], of id: JobID, to follower: Follower) {
        if follower.sequence.ended { remove(Following(id: id, number: follower.number)) }
        if !events.isEmpty { follower.receive(events) }
    }

    // MARK: Periodic checks for lost events

    private func scheduleCheck() {
        guard !isCheckScheduled else { return }
        isCheckScheduled = true
        eventLoop.scheduleTask(in: Self.checkInterval) { self.assumeIsolated { $0.check() } }
    }

    private func check() {
        isCheckScheduled = false
        guard !jobs.isEmpty else { return }
        scheduleCheck()
        var quiet: [JobID] = []
        var long: [JobID] = []
        for (id, job) in jobs {
            var isQuiet = true
            for follower in job.followers {
                if follower.hasNewMessages { isQuiet = false } else { quiet.append(id) }
                follower.hasNewMessages = false
            }
            job.quietChecks = isQuiet ? job.quietChecks + 1 : 0
            if isQuiet, job.quietChecks.isMultiple(of: Self.checksPerEntryCheck) { long.append(id) }
        }
        guard !quiet.isEmpty else { return }
        Task { [long] in
            await self.compare(quiet)
            await self.endJobsWithoutEntry(long)
        }
    }

    /// Ends jobs whose queue entries are gone. Jobs that arrive while an earlier pass runs are checked later.
    private func endJobsWithoutEntry(_ ids: [JobID]) async {
        guard !ids.isEmpty, !isCheckingEntries else { return }
        isCheckingEntries = true
        defer { isCheckingEntries = false }
        do { try await queue.endJobsWithoutEntry(ids) } catch {
            logger.debug("queue entries could not be checked; a later check retries", metadata: ["error": "\(error)"])
        }
    }

    /// Maximum number of jobs per round trip.
    private static let compareBatch = 500

    /// Compares quiet jobs with the last event in their logs and reads the events that are missing.
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
                for follower in job.followers where follower.sequence.last.map({ $0 < newest }) ?? true {
                    act(follower.sequence.suspect(), on: id, follower)
                }
                if job.followers.contains(where: { $0.sequence.last.map { $0 > newest } ?? false }) { await endIfOver(id) }
            }
        }
    }

    /// Delivers the terminal event to readers that have later events than it: Redis has come back with older data, in which the job has ended.
    private func endIfOver(_ id: JobID) async {
        // Redis is unavailable, which its connection has logged. The next check retries.
        guard let newest = try? await queue.lastEvent(id), newest.event.isTerminal else { return }
        for follower in jobs[id]?.followers ?? [] { deliver(follower.sequence.end(with: newest), of: id, to: follower) }
    }

    /// Checks whether jobs without a log have a record. A queued job has a record and no log yet; a job without either is lost, so its
    /// readers receive a `failed` event.
    private func checkRecords(_ ids: [JobID]) async {
        guard let known = try? await queue.areKnown(ids) else { return }
        for (id, isKnown) in zip(ids, known) {
            guard let job = jobs[id] else { continue }
            job.absences = isKnown ? 0 : job.absences + 1
            guard job.absences >= Self.maximumAbsences else { continue }
            logger.error("job lost in Redis: no record and no event log", metadata: ["job": "\(id)"])
            for follower in job.followers { deliver(follower.sequence.lost(), of: id, to: follower) }
        }
    }
}
