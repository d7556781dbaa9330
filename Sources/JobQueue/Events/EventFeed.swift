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
/// A lost message with no later event shows no gap; it is found by comparing silent jobs with their logs, many in one call of a script and
/// at growing intervals. One feed per gateway, on its event loop; all callbacks run on that loop.
package actor EventFeed: PinnedActor {
    /// Calls its argument, once, when a reader can take more. Called on the event loop between the pages of a log.
    package typealias Pace = @Sendable (_ next: @escaping @Sendable () -> Void) -> Void

    /// Timeout of a subscription's confirmation.
    private static let subscribeDeadline = TimeAmount.seconds(5)
    /// A confirmation that takes longer may come after the first events of a job submitted meanwhile, so the log is read once more.
    private static let promptConfirmation = TimeAmount.milliseconds(250)

    nonisolated let eventLoop: any EventLoop
    nonisolated let queue: JobProducer
    private let subscriber: RedisSubscriber
    let logger: Logger
    /// Whether a check waits for Redis.
    var isChecking = false
    var isCheckScheduled = false
    /// Jobs with events in `arrived`.
    private var arrivals: [JobID] = []
    var jobs: [JobID: FollowedJob] = [:]
    private var nextNumber: UInt64 = 0
    /// Reads and comparisons of logs in progress.
    private var tasks: [UInt64: Task<Void, Never>] = [:]
    private(set) var isEnded = false

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
    ///
    /// - Parameter pace: delays the pages of a log that is read because events were missed; nil: they are not delayed.
    package func follow(new id: JobID, pace: Pace? = nil, receive: @escaping @Sendable ([LoggedEvent]) -> Void) -> Following {
        begin(id, after: nil, pace, receive).following
    }

    /// The same for callers on the event loop, at once and without a task.
    package nonisolated func followOnLoop(
        new id: JobID, pace: Pace? = nil, receive: @escaping @Sendable ([LoggedEvent]) -> Void
    ) -> Following {
        assumeIsolated { $0.follow(new: id, pace: pace, receive: receive) }
    }

    /// Follows a job that was submitted earlier, starting with the events in its log. `receive` works as in `follow(new:)`.
    /// - Parameters:
    ///   - after: the last event that the receiver has; nil to start from the beginning.
    ///   - pace: as in `follow(new:)`.
    /// - Throws: `.unavailable` when Redis does not confirm the subscription within 5 s; the job is not followed then.
    package func follow(
        _ id: JobID, after: EventID?, pace: Pace? = nil, receive: @escaping @Sendable ([LoggedEvent]) -> Void
    ) async throws(RedisError) -> Following {
        let (following, follower, job) = begin(id, after: after, pace, receive)
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

    private func begin(_ id: JobID, after: EventID?, _ pace: Pace?, _ receive: @escaping @Sendable ([LoggedEvent]) -> Void) -> (
        following: Following, follower: Follower, job: FollowedJob
    ) {
        nextNumber += 1
        let follower = Follower(number: nextNumber, after: after, pace: pace, receive: receive)
        let job = jobs[id] ?? subscribe(id)
        job.followers.append(follower)
        job.hasNews = true
        if after != nil { job.mustCompare = true }
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
            job.hasNews = true
            job.isKnown = true
            job.arrived += events
            guard job.arrived.count == events.count, !events.isEmpty else { return }
            arrivals.append(id)
            if arrivals.count == 1 { eventLoop.assumeIsolated().execute { self.assumeIsolated { $0.offerArrivals() } } }
        case .subscribed:
            let again = job.confirmed
            job.confirmed = true
            let waiting = job.waiting
            job.waiting = []
            for promise in waiting { promise.succeed() }
            // Events published while the subscription was inactive are in the log.
            if again || NIODeadline.now() - job.since > Self.promptConfirmation {
                if again {
                    job.mustCompare = true
                    for follower in job.followers { follower.sequence.compareFirst() }
                }
                for follower in job.followers { act(follower.sequence.suspect(), on: id, follower) }
            }
        case .lost: break
        }
    }

    /// Offers the events of this turn of the loop to the readers. Messages of one job that arrive together make one delivery, so that a
    /// gateway under load does less for each of them.
    private func offerArrivals() {
        let ids = arrivals
        arrivals.removeAll(keepingCapacity: true)
        for id in ids {
            guard let job = jobs[id] else { continue }
            let events = job.arrived
            job.arrived = []
            for follower in job.followers { act(follower.sequence.offer(events), on: id, follower) }
        }
    }

    func act(_ action: EventSequence.Action, on id: JobID, _ follower: Follower) {
        switch action {
        case .deliver(let events): deliver(events, of: id, to: follower)
        case .fill(let after):
            let number = follower.number
            start { await $0.fill(id, number: number, after: after) }
        }
    }

    /// Runs `body` in a task of this feed.
    func start(_ body: @escaping @Sendable (isolated EventFeed) async -> Void) {
        guard !isEnded else { return }
        nextNumber += 1
        let number = nextNumber
        tasks[number] = Task {
            await body(self)
            self.tasks[number] = nil
        }
    }

    /// Waits for the tasks of this feed, which resume on the event loop and must not do so after its end. Called after the shutdown of the
    /// connections, with which their commands fail. Later ones are not started.
    /// - Parameter limit: maximum time to wait; a reader may never take the page that a task waits to deliver.
    func end(within limit: Duration) async {
        isEnded = true
        let deadline = ContinuousClock.now + limit
        while let task = tasks.values.first, await task.ends(by: deadline) {}
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
                if let pace = follower.pace { await withCheckedContinuation { next in pace { next.resume() } } }
                guard self.follower(id, number) != nil else { return }
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
        let (logged, reached) = try await queue.history(id, at: shown.id)
        guard let follower = follower(id, number) else { return false }
        switch follower.sequence.compare(logged: logged, reached: reached) {
        case .continued: return true
        case .behind: return false
        case .rewritten:
            logger.warning("Redis lost output that readers have, and has other output now", metadata: ["job": "\(id)"])
            // Should the job have ended, no event follows that this reader would take.
            jobs[id]?.mustCompare = true
            try await queue.startAgain(id, attempt: shown.id.attempt)
            await endIfOver(id)
            return true
        }
    }

    private func follower(_ id: JobID, _ number: UInt64) -> Follower? { jobs[id]?.followers.first { $0.number == number } }

    func deliver(_ events: [LoggedEvent], of id: JobID, to follower: Follower) {
        if follower.sequence.ended { remove(Following(id: id, number: follower.number)) }
        if !events.isEmpty { follower.receive(events) }
    }
}
