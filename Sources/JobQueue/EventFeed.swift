import Contract
import Logging
import NIOCore
import RedisClient

/// One reader of a job's events.
package struct Following: Sendable, Hashable {
    package let id: JobID
    fileprivate let number: UInt64
}

/// Follows jobs' events for a gateway: live by pub/sub, gaps filled from the log, what was lost without a successor found by looking. One a
/// gateway, on its event loop: whatever it calls back runs there.
package actor EventFeed {
    /// How often followings that heard nothing are compared with their logs; with it a lost terminal event is found within two of them.
    package static let lookInterval = TimeAmount.milliseconds(900)
    /// Looks in a row after which a job without log and record counts as lost by Redis (emptied, or back without its data): longer than a
    /// submission is under way while Redis answers.
    private static let absencesOfALostJob = 8
    /// How long a subscription may take to be confirmed.
    private static let subscribeDeadline = TimeAmount.seconds(5)
    /// One that took longer may have come into force behind the first events of a job that was submitted meanwhile.
    private static let promptConfirmation = TimeAmount.milliseconds(250)

    private final class Follower {
        let number: UInt64
        var sequence: EventSequence
        let receive: @Sendable ([LoggedEvent]) -> Void
        /// Heard something since the last look.
        var lively = true

        init(number: UInt64, after: EventID?, receive: @escaping @Sendable ([LoggedEvent]) -> Void) {
            self.number = number
            sequence = EventSequence(after: after)
            self.receive = receive
        }
    }

    private final class FollowedJob {
        let since = NIODeadline.now()
        var followers: [Follower] = []
        var confirmed = false
        var waiting: [EventLoopPromise<Void>] = []
        /// Looks in a row that found neither a log nor a record.
        var absences = 0
    }

    private nonisolated let eventLoop: any EventLoop
    private nonisolated let queue: JobQueue
    private let subscriber: RedisSubscriber
    private let logger: Logger
    private var jobs: [JobID: FollowedJob] = [:]
    private var nextNumber: UInt64 = 0
    private var looking = false

    package nonisolated var unownedExecutor: UnownedSerialExecutor { queue.redis.executor.asUnownedSerialExecutor() }

    /// - Parameters:
    ///   - subscriber: on the same event loop.
    package init(queue: JobQueue, subscriber: RedisSubscriber, eventLoop: any EventLoop, logger: Logger) {
        self.queue = queue
        self.subscriber = subscriber
        self.eventLoop = eventLoop
        self.logger = logger
    }

    /// Follows a job that is about to be submitted. The submission need not wait for the subscription: should that come into force
    /// behind the first events, the next one shows the gap, or the look at the log finds them.
    ///
    /// `receive` runs on the event loop with one or more events, in order, without gaps or duplicates, nothing of an older attempt after a
    /// newer, nothing after a terminal event; that one ends the following by itself.
    package func follow(new id: JobID, receive: @escaping @Sendable ([LoggedEvent]) -> Void) -> Following {
        begin(id, after: nil, receive).following
    }

    /// Follows a job that was submitted earlier: what its log has first. `receive` as in `follow(new:)`.
    /// - Parameter after: the last event the receiver has; nil: from the beginning.
    /// - Throws: `unavailable` when Redis did not confirm the subscription within 5 s; nothing is followed then.
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
        startLooking()
        return (Following(id: id, number: nextNumber), follower, job)
    }

    /// Ends a following; nothing is received after it. May be called on any thread, and more than once.
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
            self?.assumeIsolated { $0.heard(event, of: id) }
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

    private func heard(_ event: SubscriptionEvent, of id: JobID) {
        guard let job = jobs[id] else { return }
        switch event {
        case .message(let buffer):
            let events: [LoggedEvent]
            do {
                events = try buffer.withUnsafeReadableBytes { bytes in
                    try LoggedEvent.array(parsing: bytes.bindMemory(to: UInt8.self))
                }
            } catch {
                logger.warning("a message on a job's channel is no array of events", metadata: ["job": "\(id)", "error": "\(error)"])
                return
            }
            for follower in job.followers {
                follower.lively = true
                act(follower.sequence.offer(events), on: id, follower)
            }
        case .subscribed:
            let again = job.confirmed
            job.confirmed = true
            let waiting = job.waiting
            job.waiting = []
            for promise in waiting { promise.succeed() }
            // What was published while the subscription was away is in the log.
            if again || NIODeadline.now() - job.since > Self.promptConfirmation {
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

    /// Bytes of a log that are held at a time.
    private static let pageSize = 256 << 10

    private func fill(_ id: JobID, number: UInt64, after: EventID?) async {
        do {
            var page = try await queue.logPage(id, after: after?.description, size: Self.pageSize)
            while !page.isLast, let end = page.end, let follower = follower(id, number) {
                deliver(follower.sequence.filledInPart(page.events), of: id, to: follower)
                page = try await queue.logPage(id, after: end, size: Self.pageSize)
            }
            guard let follower = follower(id, number) else { return }
            deliver(follower.sequence.filled(page.events), of: id, to: follower)
            if follower.sequence.hasGap { act(follower.sequence.suspect(), on: id, follower) }
        } catch {
            // Redis is away; said once by its connection. The next look tries again.
            follower(id, number)?.sequence.fillFailed()
        }
    }

    private func follower(_ id: JobID, _ number: UInt64) -> Follower? { jobs[id]?.followers.first { $0.number == number } }

    private func deliver(_ events: [LoggedEvent], of id: JobID, to follower: Follower) {
        if follower.sequence.ended { remove(Following(id: id, number: follower.number)) }
        if !events.isEmpty { follower.receive(events) }
    }

    // MARK: looking for what was lost

    private func startLooking() {
        guard !looking else { return }
        looking = true
        eventLoop.scheduleTask(in: Self.lookInterval) { self.assumeIsolated { $0.look() } }
    }

    private func look() {
        looking = false
        guard !jobs.isEmpty else { return }
        startLooking()
        var silent: [JobID] = []
        for (id, job) in jobs {
            for follower in job.followers {
                if !follower.lively { silent.append(id) }
                follower.lively = false
            }
        }
        guard !silent.isEmpty else { return }
        Task { await self.compare(silent) }
    }

    /// Jobs asked for in one round trip.
    private static let comparedAtOnce = 500

    private func compare(_ ids: [JobID]) async {
        for start in stride(from: 0, to: ids.count, by: Self.comparedAtOnce) {
            let some = Array(ids[start..<min(start + Self.comparedAtOnce, ids.count)])
            // Redis away is said once by its connection; the next look tries again.
            guard let newest = try? await queue.lastEvents(some) else { return }
            let absent = zip(some, newest).filter { $0.1 == nil }.map(\.0)
            if !absent.isEmpty { await lookForRecords(absent) }
            for (id, newest) in zip(some, newest) {
                guard let newest, let job = jobs[id] else { continue }
                job.absences = 0
                for follower in job.followers where follower.sequence.last.map({ $0 < newest }) ?? true {
                    act(follower.sequence.suspect(), on: id, follower)
                }
            }
        }
    }

    /// A job in the queue has no log yet; one without a record either will never have one. Its readers are told, for nobody else will.
    private func lookForRecords(_ ids: [JobID]) async {
        guard let known = try? await queue.areKnown(ids) else { return }
        for (id, isKnown) in zip(ids, known) {
            guard let job = jobs[id] else { continue }
            job.absences = isKnown ? 0 : job.absences + 1
            guard job.absences >= Self.absencesOfALostJob else { continue }
            logger.error("Redis lost a job; its readers are told", metadata: ["job": "\(id)"])
            for follower in job.followers { deliver(follower.sequence.lost(), of: id, to: follower) }
        }
    }
}
