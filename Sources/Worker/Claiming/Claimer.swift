import Contract
import CoreMetrics
import JobQueue
import Logging
import NIOCore
import RedisClient
import Upstream

/// Claims jobs for free slots: waiting ones, and those with expired leases.
///
/// Runs on the event loop of its Redis connections, like the interrupt listener. An interrupt that arrives before the reply to a claim
/// therefore finds the job in `claiming`.
actor Claimer {
    /// Timeout of one blocking read, in milliseconds. Also the maximum delay until an operator's pause or `stop` takes effect.
    private static let waitMilliseconds = 1_000
    /// Maximum entries per take. Their claim scripts must not block Redis for long.
    private static let takenAtOnce = 64
    /// Maximum entries per reply where no script limits its bytes: each entry may be a job of the maximum size.
    private static let readAtOnce = 4

    private nonisolated let eventLoop: any EventLoop
    private nonisolated let consumer: JobConsumer
    private let room: GenerationRoom
    private let capacity: Int
    private let metrics: WorkerMetrics
    private let logger: Logger
    private let clock: @Sendable () -> UInt64

    /// Entries that occupy a slot: delivered to this process and not yet released.
    private var held: Set<Place> = []
    /// Jobs with a claim in progress, and the interrupt that arrived meanwhile, if any.
    private var claiming: [JobID: Interrupt?] = [:]
    private var stopping = false
    /// Classes paused by an operator.
    private var paused: Set<JobClass> = []
    /// The partition to read first; changes with each take.
    private var firstPartition = 0
    /// Suspended `step` calls that wait for a free slot.
    private var waitingForSlot: [CheckedContinuation<Void, Never>] = []
    private var takingOver = false
    /// Another takeover pass was requested while one was running.
    private var takeOverAgain = false
    /// A reply may have been lost, so entries may be pending for this consumer that it never received.
    private var mayHaveLostReply = false
    /// Error logs of queues (by key) whose last read failed. Blocking reads exclude these queues.
    private var unreadable: [String: OnceLogger] = [:]
    private var fetchErrors = OnceLogger("job fetch rejected by Redis", over: "job fetch accepted by Redis again")
    private var claimErrors = OnceLogger("Redis refuses claims", over: "Redis takes claims again")

    /// Identifies a queue entry.
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

    /// The number of occupied slots.
    var inFlight: Int { held.count }
    private var free: Int { capacity - held.count }
    /// The classes that are not paused, highest priority first.
    private var classes: [JobClass] { JobClass.allCases.filter { !paused.contains($0) } }

    // MARK: waiting jobs

    /// Claims jobs until `stop` is called or the task is cancelled. Redis errors are logged and retried with back-off.
    func run() async {
        var failures = 0
        while !stopping, !Task.isCancelled {
            do {
                if mayHaveLostReply { try await startUndelivered() }
                let worked = try await step()
                if worked { failures = 0 }
            } catch {
                mayHaveLostReply = true
                failures += 1
                await recover(from: error, failures: failures)
            }
        }
    }

    /// One iteration: claims waiting entries, or waits for the next ones.
    /// - Returns: false when there was no free slot or all classes are paused.
    private func step() async throws(RedisError) -> Bool {
        guard free > 0 else {
            await withCheckedContinuation { waitingForSlot.append($0) }
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
            // With every queue excluded the read returned at once; wait as long as it would have blocked.
            if taken.isEmpty, unreadable.count >= classes.count * consumer.keys.partitions {
                await pause(.milliseconds(Int64(Self.waitMilliseconds)))
            }
        }
        fetchErrors.recovered(logger)
        start(taken, leaseExpired: false)
        // Lets the started claims send their commands before the next read. (Task.yield would switch threads twice.)
        await withCheckedContinuation { continuation in eventLoop.execute { continuation.resume() } }
        return true
    }

    /// Takes up to `takenAtOnce` waiting entries for the free slots.
    private func take() async throws(RedisError) -> [QueueEntry] {
        let count = min(free, Self.takenAtOnce)
        let partitions = consumer.keys.partitions
        guard partitions > 1 else { return try await take(from: 0, classes, count) }
        // A class has priority over the next one across all partitions. The first partition rotates so that none starves.
        firstPartition = (firstPartition + 1) % partitions
        var entries: [QueueEntry] = []
        for priority in classes {
            for offset in 0..<partitions where entries.count < count {
                let partition = (firstPartition + offset) % partitions
                do {
                    entries += try await take(from: partition, [priority], count - entries.count)
                } catch {
                    // Entries already taken from other partitions belong to this worker and are started.
                    start(entries, leaseExpired: false)
                    throw error
                }
            }
        }
        return entries
    }

    /// Takes entries from one partition. A queue that cannot be read is logged once and does not prevent reading the others.
    /// - Throws: the error of a missing consumer group, or when the whole command failed.
    private func take(from partition: Int, _ classes: [JobClass], _ count: Int) async throws(RedisError) -> [QueueEntry] {
        let taken = try await consumer.take(partition: partition, classes: classes, count: count)
        // Only an empty result proves that every queue was read: otherwise those after the last entry may have been skipped.
        for priority in classes where taken.entries.isEmpty && !taken.faults.contains(where: { $0.priority == priority }) {
            let key = consumer.keys.queue(priority, partition: partition)
            if var errorLog = unreadable.removeValue(forKey: key) { errorLog.recovered(logger) }
        }
        for (priority, error) in taken.faults {
            if error.message.contains("NOGROUP") {
                // Entries already taken from other queues belong to this worker and are started.
                start(taken.entries, leaseExpired: false)
                throw error
            }
            metrics.queueUnreadable(priority)
            let key = consumer.keys.queue(priority, partition: partition)
            let errorLog = OnceLogger("a queue cannot be read; the others are served", over: "the queue can be read again")
            unreadable[key, default: errorLog].failed(error, logger, ["class": "\(priority)", "partition": "\(partition)"])
        }
        return taken.entries
    }

    /// Logs the error, recreates missing consumer groups, and waits with jittered exponential back-off of at most 1 s.
    private func recover(from error: RedisError, failures: Int) async {
        if error.code == .server, error.message.contains("NOGROUP") {
            logger.warning("consumer groups are missing; making them", metadata: ["error": "\(error)"])
            do { return try await consumer.createGroups() } catch {
                logger.debug("could not make consumer groups", metadata: ["error": "\(error)"])
            }
        } else if error.code == .server || error.code == .protocolViolation {
            fetchErrors.failed(error, logger)
        }
        await pause(.milliseconds(Int64.random(in: 20...max(20, min(1_000, 40 << min(failures, 5))))))
    }

    /// Starts entries that Redis delivered to this consumer in a reply that was lost.
    private func startUndelivered() async throws(RedisError) {
        for partition in 0..<consumer.keys.partitions {
            for priority in JobClass.allCases {
                do { try await startUndelivered(partition, priority) } catch {
                    // A key of another type holds no entries of this consumer.
                    guard error.code == .server, error.message.hasPrefix("WRONGTYPE") else { throw error }
                }
            }
        }
        mayHaveLostReply = false
    }

    private func startUndelivered(_ partition: Int, _ priority: JobClass) async throws(RedisError) {
        var after = "0"
        while true {
            let page = try await consumer.undelivered(partition: partition, priority: priority, after: after, count: Self.readAtOnce)
            guard let last = page.last, last.id != after else { return }
            after = last.id
            start(page.filter { !held.contains(Place($0)) }, leaseExpired: false)
        }
    }

    // MARK: takeover

    /// Takes over entries with expired leases, and handed-back ones, while there are free slots. Scans each pending list to its end.
    func takeOver() async {
        guard !stopping else { return }
        guard !takingOver else {
            // Entries handed back meanwhile may be in a queue that the running pass has already scanned.
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
                    mayHaveLostReply = true
                    // A queue that cannot be read does not prevent scanning the others.
                    guard error.code == .server else { return }
                }
            }
        }
    }

    /// Takes over the entries of one queue.
    /// - Returns: false when no slot is free or the claimer is stopping.
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

    /// Starts a claim for each entry that fits into a free slot, and puts the others back.
    private func start(_ entries: [QueueEntry], leaseExpired: Bool) {
        var excess: [QueueEntry] = []
        for entry in entries where !held.contains(Place(entry)) {
            // One blocking read may return entries of several queues.
            guard free > 0, !stopping else {
                excess.append(entry)
                continue
            }
            held.insert(Place(entry))
            Task.immediate(executorPreference: consumer.redis.executor) { await self.claim(entry, leaseExpired: leaseExpired) }
        }
        if !excess.isEmpty { Task { await self.putBack(excess) } }
    }

    /// Returns unclaimed entries to their queues.
    private func putBack(_ entries: [QueueEntry]) async {
        do { try await consumer.putBack(entries) } catch {
            // They stay pending for this consumer until `startUndelivered` finds them or their lease expires.
            mayHaveLostReply = true
        }
    }

    /// Claims one entry and passes the job to the generation room. Releases the slot when the job does not run here.
    private func claim(_ entry: QueueEntry, leaseExpired: Bool) async {
        let job: Job
        do {
            job = try await read(entry)
        } catch {
            await reject(entry, error)
            return release(entry)
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
        guard case .claimed(let claim) = outcome else { return release(entry) }
        metrics.claims.increment()
        if claim.attempt == 1 { metrics.waited(claim) }
        room.begin(claim, earlier: earlier, interrupt: interrupt)
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
        let partition = consumer.keys.partition(of: job.id.rawValue)
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
        let misplaced = error.id.map { consumer.keys.partition(of: $0.rawValue) != entry.partition } ?? false
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
        let lease = UInt64(consumer.settings.lease.components.seconds) &* 1_000_000_000 &+ 1_000_000_000
        let begun = clock()
        var tries = 0
        while clock() - begun < lease {
            do {
                let outcome = try await consumer.claim(job, entry: entry, leaseExpired: leaseExpired)
                claimErrors.recovered(logger)
                return outcome
            } catch {
                tries += 1
                if error.code == .server { claimErrors.failed(error, logger) }
                mayHaveLostReply = true
                await pause(.milliseconds(Int64.random(in: 10...(50 << min(tries, 4)))))
            }
        }
        return .busy
    }

    /// Reads the event log of earlier attempts; empty after 20 failed reads.
    private func log(of id: JobID) async -> [LoggedEvent] {
        for _ in 0..<20 {
            do {
                return try await JobProducer(redis: consumer.redis, settings: consumer.settings).log(id, after: nil)
            } catch { await pause(.milliseconds(100)) }
        }
        return []
    }

    // MARK: calls from other types

    /// Frees the slot of an entry that this worker no longer owns.
    func release(_ entry: QueueEntry) {
        held.remove(Place(entry))
        guard !waitingForSlot.isEmpty, free > 0 else { return }
        wake()
    }

    /// Stores an interrupt for a job with a claim in progress; the first one wins.
    /// - Returns: false when no claim of that job is in progress.
    func keep(_ interrupt: Interrupt) -> Bool {
        guard let known = claiming[interrupt.id] else { return false }
        if known == nil { claiming[interrupt.id] = interrupt }
        return true
    }

    /// Replaces the set of paused classes.
    func pauseClasses(_ classes: Set<JobClass>) { paused = classes }

    /// Stops claiming. A blocking read in progress ends within its timeout of 1 s, and its entries are put back.
    func stop() {
        stopping = true
        wake()
    }

    /// Resumes all waits for a free slot.
    private func wake() {
        for continuation in waitingForSlot { continuation.resume() }
        waitingForSlot = []
    }

    private func pause(_ time: TimeAmount) async {
        await withCheckedContinuation { continuation in
            _ = eventLoop.scheduleTask(in: time) { continuation.resume() }
        }
    }
}
