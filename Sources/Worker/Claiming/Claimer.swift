import Contract
import CoreMetrics
import JobQueue
import Logging
import NIOCore
import RedisClient
import Upstream

/// Takes jobs for the slots that are free: waiting ones, and those whose worker was lost. Stands on the event loop of its Redis
/// connections, as the interrupt listener does: so an interrupt that overtakes the answer to a claim finds the job among those being
/// claimed.
actor Claimer {
    /// How long one blocking read waits. Also how soon a pause by an operator and the end of claiming are noticed.
    private static let waitMilliseconds = 1_000
    /// Entries taken at once: their scripts should not hold Redis up.
    private static let takenAtOnce = 64
    /// Entries in one answer where no script bounds its bytes: each may be a job of the largest size.
    private static let readAtOnce = 16

    private nonisolated let eventLoop: any EventLoop
    private nonisolated let consumer: JobConsumer
    private let room: GenerationRoom
    private let capacity: Int
    private let metrics: WorkerMetrics
    private let logger: Logger
    private let clock: @Sendable () -> UInt64

    /// Entries that hold a slot: delivered to this process and not yet ended.
    private var held: Set<Place> = []
    /// Jobs whose claim script was sent and not yet answered, with the interrupt that came meanwhile.
    private var claiming: [JobID: Interrupt?] = [:]
    private var stopping = false
    private var paused: Set<JobClass> = []
    private var firstPartition = 0
    private var waitingForRoom: [CheckedContinuation<Void, Never>] = []
    private var takingOver = false
    private var takeOverAgain = false
    /// A reply may have been lost: entries may be pending for us that we never saw.
    private var mayHaveMissed = false
    /// Queues that could not be read when they were last asked for entries: no others wait for them.
    private var unreadable: [String: Complaint] = [:]
    private var taking = Complaint("Redis refuses to give jobs", over: "Redis gives jobs again")
    private var claims = Complaint("Redis refuses claims", over: "Redis takes claims again")

    private struct Place: Hashable {
        let partition: Int
        let priority: JobClass
        let id: String

        init(_ entry: QueueEntry) {
            partition = entry.partition
            priority = entry.priority
            id = entry.id
        }
    }

    nonisolated var unownedExecutor: UnownedSerialExecutor { consumer.redis.executor.asUnownedSerialExecutor() }

    init(
        consumer: JobConsumer, room: GenerationRoom, capacity: Int, metrics: WorkerMetrics, logger: Logger,
        clock: @escaping @Sendable () -> UInt64
    ) {
        eventLoop = consumer.redis.eventLoop
        self.consumer = consumer
        self.room = room
        self.capacity = capacity
        self.metrics = metrics
        self.logger = logger
        self.clock = clock
    }

    var inFlight: Int { held.count }
    private var free: Int { capacity - held.count }
    private var classes: [JobClass] { JobClass.allCases.filter { !paused.contains($0) } }

    // MARK: waiting jobs

    /// Claims until `stop` was called or the task is cancelled.
    func run() async {
        var trouble = 0
        while !stopping, !Task.isCancelled {
            do {
                if mayHaveMissed { try await fetchMissed() }
                let worked = try await step()
                if worked { trouble = 0 }
            } catch {
                mayHaveMissed = true
                trouble += 1
                await recover(from: error, trouble: trouble)
            }
        }
    }

    /// One round: what waits now, or the next that comes. False when there was no room.
    private func step() async throws(RedisError) -> Bool {
        guard free > 0 else {
            await withCheckedContinuation { waitingForRoom.append($0) }
            return false
        }
        guard !classes.isEmpty else {
            await pause(.milliseconds(Int64(Self.waitMilliseconds)))
            return false
        }
        var taken = try await take()
        if taken.isEmpty {
            taken = try await consumer.wait(
                classes: classes, excluding: Set(unreadable.keys), milliseconds: Self.waitMilliseconds)
            // Without a queue to wait for, the next look is as far away as a wait would have been long.
            if taken.isEmpty, unreadable.count >= classes.count * consumer.keys.partitions {
                await pause(.milliseconds(Int64(Self.waitMilliseconds)))
            }
        }
        taking.settle(logger)
        start(taken, leaseExpired: false)
        // The claims go to Redis before the next question for what waits. (Task.yield would cross to another thread and back.)
        await withCheckedContinuation { continuation in eventLoop.execute { continuation.resume() } }
        return true
    }

    private func take() async throws(RedisError) -> [QueueEntry] {
        let count = min(free, Self.takenAtOnce)
        let partitions = consumer.keys.partitions
        guard partitions > 1 else { return try await take(from: 0, classes, count) }
        // A class goes before the next one over all partitions; which partition is first changes, so that none starves.
        firstPartition = (firstPartition + 1) % partitions
        var entries: [QueueEntry] = []
        for priority in classes {
            for offset in 0..<partitions where entries.count < count {
                let partition = (firstPartition + offset) % partitions
                do {
                    entries += try await take(from: partition, [priority], count - entries.count)
                } catch {
                    // What was taken from other partitions is ours all the same.
                    start(entries, leaseExpired: false)
                    throw error
                }
            }
        }
        return entries
    }

    private func take(from partition: Int, _ classes: [JobClass], _ count: Int) async throws(RedisError) -> [QueueEntry] {
        let taken = try await consumer.take(partition: partition, classes: classes, count: count)
        // When nothing was taken every queue was asked; else those behind the last entry may not have been.
        for priority in classes where taken.entries.isEmpty && !taken.faults.contains(where: { $0.priority == priority }) {
            let key = consumer.keys.queue(priority, partition: partition)
            if var complaint = unreadable.removeValue(forKey: key) { complaint.settle(logger) }
        }
        for (priority, error) in taken.faults {
            if error.message.contains("NOGROUP") {
                // What was taken from other queues is ours all the same.
                start(taken.entries, leaseExpired: false)
                throw error
            }
            metrics.queueUnreadable(priority)
            let key = consumer.keys.queue(priority, partition: partition)
            let complaint = Complaint("a queue cannot be read; the others are served", over: "the queue can be read again")
            unreadable[key, default: complaint].raise(error, logger, ["class": "\(priority)", "partition": "\(partition)"])
        }
        return taken.entries
    }

    private func recover(from error: RedisError, trouble: Int) async {
        if error.code == .server, error.message.contains("NOGROUP") {
            logger.warning("consumer groups are missing; making them", metadata: ["error": "\(error)"])
            do { return try await consumer.createGroups() } catch {
                logger.debug("could not make consumer groups", metadata: ["error": "\(error)"])
            }
        } else if error.code == .server || error.code == .protocolViolation {
            taking.raise(error, logger)
        }
        await pause(.milliseconds(Int64.random(in: 20...max(20, min(1_000, 40 << min(trouble, 5))))))
    }

    /// What Redis delivered to us in an answer that never came.
    private func fetchMissed() async throws(RedisError) {
        for partition in 0..<consumer.keys.partitions {
            for priority in JobClass.allCases {
                do { try await fetchMissed(partition, priority) } catch {
                    // A key that is no stream holds nothing of ours.
                    guard error.code == .server, error.message.hasPrefix("WRONGTYPE") else { throw error }
                }
            }
        }
        mayHaveMissed = false
    }

    private func fetchMissed(_ partition: Int, _ priority: JobClass) async throws(RedisError) {
        var after = "0"
        while true {
            let page = try await consumer.undelivered(partition: partition, priority: priority, after: after, count: Self.readAtOnce)
            guard let last = page.last, last.id != after else { return }
            after = last.id
            start(page.filter { !held.contains(Place($0)) }, leaseExpired: false)
        }
    }

    // MARK: lost workers' jobs

    /// Takes over entries whose lease ran out, or that were handed back, as far as there is room. Follows each queue's list to its end.
    func takeOver() async {
        guard !stopping else { return }
        guard !takingOver else {
            // What was handed back meanwhile may lie in a queue that was gone through already.
            takeOverAgain = true
            return
        }
        takingOver = true
        repeat {
            takeOverAgain = false
            await takeOverOnce()
        } while takeOverAgain && !stopping
        takingOver = false
    }

    private func takeOverOnce() async {
        for priority in classes {
            for partition in 0..<consumer.keys.partitions {
                do {
                    guard try await takeOver(partition, priority) else { return }
                } catch {
                    mayHaveMissed = true
                    // A queue that cannot be read keeps no other from being looked at.
                    guard error.code == .server else { return }
                }
            }
        }
    }

    /// - Returns: false when there is no room for more.
    private func takeOver(_ partition: Int, _ priority: JobClass) async throws(RedisError) -> Bool {
        var cursor = "0-0"
        repeat {
            let count = min(free, Self.readAtOnce)
            guard count > 0, !stopping else { return false }
            let step = try await consumer.takeOver(partition: partition, priority: priority, cursor: cursor, count: count)
            start(step.entries, leaseExpired: true)
            guard step.cursor != cursor else { return true }
            cursor = step.cursor
        } while cursor != "0-0"
        return true
    }

    // MARK: claims

    private func start(_ entries: [QueueEntry], leaseExpired: Bool) {
        var excess: [QueueEntry] = []
        for entry in entries where !held.contains(Place(entry)) {
            // Several queues may answer one wait.
            guard free > 0, !stopping else {
                excess.append(entry)
                continue
            }
            held.insert(Place(entry))
            Task.immediate(executorPreference: consumer.redis.executor) { await self.claim(entry, leaseExpired: leaseExpired) }
        }
        if !excess.isEmpty { Task { await self.putBack(excess) } }
    }

    private func putBack(_ entries: [QueueEntry]) async {
        do { try await consumer.putBack(entries) } catch {
            // They stay pending for us: found by `fetchMissed`, or by others after the lease.
            mayHaveMissed = true
        }
    }

    private func claim(_ entry: QueueEntry, leaseExpired: Bool) async {
        let job: Job
        do {
            job = try read(entry)
        } catch {
            await reject(entry, error)
            return release(entry)
        }
        claiming[job.id] = .some(nil)
        let outcome = await ask(job, entry, leaseExpired: leaseExpired)
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
                metadata: job.facts(["state": code == nil ? "interrupted" : "failed", "code": "\(code?.rawValue ?? "")"]))
        }
        guard case .claimed(let claim) = outcome else { return release(entry) }
        metrics.claims.increment()
        if claim.attempt == 1 { metrics.waited(claim) }
        room.begin(claim, earlier: earlier, interrupt: interrupt)
    }

    private func read(_ entry: QueueEntry) throws(JobError) -> Job {
        guard let bytes = entry.job else { throw JobError(id: nil, reason: "the queue's entry has no field \"job\"") }
        var job = try Job(parsing: bytes)
        // The queue that it lies in decides.
        job.priority = entry.priority
        guard consumer.keys.partition(of: job.id.rawValue) == entry.partition else {
            throw JobError(
                id: job.id,
                reason:
                    "the job lies in partition \(entry.partition), its id belongs to partition \(consumer.keys.partition(of: job.id.rawValue))"
            )
        }
        return job
    }

    private func reject(_ entry: QueueEntry, _ error: JobError) async {
        metrics.rejected.increment()
        logger.warning(
            "an entry of a queue was rejected",
            metadata: ["entry": "\(entry.id)", "job": "\(error.id?.rawValue ?? "?")", "reason": "\(error.reason)"])
        let misplaced = error.id.map { consumer.keys.partition(of: $0.rawValue) != entry.partition } ?? false
        do {
            try await consumer.reject(entry, id: error.id, message: error.reason, toDeadLetters: misplaced)
            if misplaced { metrics.deadLettered(.invalidRequest) }
        } catch {
            // It stays pending for us and is met again.
            mayHaveMissed = true
        }
    }

    /// Asks until there is an answer: the script may be called again, it knows this process by its token. Gives up after a lease: others
    /// may take the entry then.
    private func ask(_ job: Job, _ entry: QueueEntry, leaseExpired: Bool) async -> ClaimOutcome {
        let lease = UInt64(consumer.settings.lease.components.seconds) &* 1_000_000_000 &+ 1_000_000_000
        let begun = clock()
        var tries = 0
        while clock() - begun < lease {
            do {
                let outcome = try await consumer.claim(job, entry: entry, leaseExpired: leaseExpired)
                claims.settle(logger)
                return outcome
            } catch {
                tries += 1
                if error.code == .server { claims.raise(error, logger) }
                mayHaveMissed = true
                await pause(.milliseconds(Int64.random(in: 10...(50 << min(tries, 4)))))
            }
        }
        return .busy
    }

    private func log(of id: JobID) async -> [LoggedEvent] {
        for _ in 0..<20 {
            do {
                return try await JobQueue(redis: consumer.redis, settings: consumer.settings).log(id, after: nil)
            } catch { await pause(.milliseconds(100)) }
        }
        return []
    }

    // MARK: from elsewhere

    /// A job is no longer ours: its slot is free.
    func release(_ entry: QueueEntry) {
        held.remove(Place(entry))
        guard !waitingForRoom.isEmpty, free > 0 else { return }
        wake()
    }

    /// Keeps an interrupt for a job whose claim is under way; false for any other job.
    func keep(_ interrupt: Interrupt) -> Bool {
        guard let known = claiming[interrupt.id] else { return false }
        if known == nil { claiming[interrupt.id] = interrupt }
        return true
    }

    func pauseClasses(_ classes: Set<JobClass>) { paused = classes }

    /// No further job is claimed; a blocking read that is under way ends within its second, and what it brings is put back.
    func stop() {
        stopping = true
        wake()
    }

    private func wake() {
        for continuation in waitingForRoom { continuation.resume() }
        waitingForRoom = []
    }

    private func pause(_ time: TimeAmount) async {
        await withCheckedContinuation { continuation in
            _ = eventLoop.scheduleTask(in: time) { continuation.resume() }
        }
    }
}
