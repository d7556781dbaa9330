import Contract
import CoreMetrics
import JobQueue
import Logging
import NIOCore
import Support

/// Claims jobs for free slots: waiting ones, and those with expired leases (Claimer+Takeover). Claimer+Claims turns a delivered entry into a
/// running generation.
///
/// Runs on the event loop of its Redis connections, like the interrupt listener. An interrupt that arrives before the reply to a claim
/// therefore finds the job in `claiming`.
actor Claimer: PinnedActor {
    /// Timeout of one blocking read, in milliseconds. Also the maximum delay until `stop` takes effect; longer in a cluster with many
    /// partitions, where `stop` ends the reads.
    static let waitMilliseconds = 1_000
    /// Maximum entries per take. Their claim scripts must not block Redis for long.
    static let takenAtOnce = 64
    /// Maximum repetitions of a take that sorts entries before it serves any, so that entries which arrive faster do not prevent service.
    private static let takesRepeated = 64
    /// Maximum entries per reply where no script limits its bytes: each entry may be a job of the maximum size.
    static let readAtOnce = 4
    /// Maximum entries per queue of a blocking read: a second one shows that further ones may wait.
    private static let waitedMaximum = 2

    nonisolated let consumer: JobConsumer
    let pool: GenerationPool
    private let capacity: Int
    let metrics: WorkerMetrics
    let logger: Logger
    let clock: @Sendable () -> UInt64

    /// Entries that occupy a slot: delivered to this process and not yet released.
    var held: Set<EntryID> = []
    /// Those of `held` whose jobs wait for a limit of an upstream. Up to `waitingMaximum` of them occupy no slot.
    private var waitingForLimits: Set<EntryID> = []
    /// The worker keeps the waiting jobs in memory, so their number is limited.
    private var waitingMaximum: Int { max(4 * capacity, 1_000) }
    /// Jobs with a claim in progress, and the interrupt that arrived meanwhile, if any.
    var claiming: [JobID: Interrupt?] = [:]
    /// Number of claims in progress.
    private(set) var openClaims = 0
    /// Suspended `waitForClaims` calls.
    private var waitingForClaims: [CheckedContinuation<Void, Never>] = []
    /// Suspended `waitForReplies` calls.
    var waitingForReplies: [CheckedContinuation<Void, Never>] = []
    var isStopping = false
    /// Classes paused by an operator.
    private var paused: Set<JobClass> = []
    /// The partition to read first; changes with each take.
    var firstPartition = 0
    /// Slots that takes in progress may fill.
    private var requested = 0
    /// Partitions in which entries may wait that a blocking read does not return: sorted by tenant, returned, or left by an earlier take.
    var mustTake: Set<Int> {
        didSet { if !mustTake.isEmpty { wakeReads() } }
    }
    /// Suspended `step` calls that wait for a free slot.
    private var waitingForSlot: [CheckedContinuation<Void, Never>] = []
    var isTakingOver = false
    /// Partitions that the next takeover pass looks at.
    var toTakeOver: Set<Int> = []
    /// Whether the last look at all partitions has found delivered or sorted entries.
    var hasFoundEntries = true
    /// Partitions where a reply may have been lost: Redis may have delivered entries to this consumer that it never received.
    var uncertain: Set<Int>
    /// Whether there are such partitions that are reachable. Setting it concerns all partitions.
    var mayHaveLostReply: Bool {
        get { uncertain.contains { consumer.isReachable(partition: $0) } }
        set { uncertain = newValue ? Set(0..<consumer.partitions) : [] }
    }
    /// Partitions of a cluster with a blocking read in progress.
    var blockedReads: Set<Int> = []
    /// Suspended `waitInPartitions` calls.
    var waitingForReads: [CheckedContinuation<Void, Never>] = []
    /// A blocking read has ended while nothing waited for it.
    var hasReadEnded = false
    /// Error logs of queues whose last read failed. Blocking reads exclude these queues.
    private(set) var unreadable: [QueueLocation: OnceLogger] = [:]
    private var fetchErrors = OnceLogger("job fetch rejected by Redis", over: "job fetch accepted by Redis again")
    var claimErrors = OnceLogger("job claim rejected by Redis", over: "job claim accepted by Redis again")

    /// Identifies a queue entry.
    struct EntryID: Hashable {
        let queue: QueueLocation
        let id: String

        init(_ entry: QueueEntry) {
            queue = entry.queue
            id = entry.id
        }
    }

    nonisolated var executor: QueueExecutor { consumer.executor }

    init(
        consumer: JobConsumer, pool: GenerationPool, capacity: Int, metrics: WorkerMetrics, logger: Logger,
        clock: @escaping @Sendable () -> UInt64
    ) {
        self.consumer = consumer
        self.pool = pool
        self.capacity = capacity
        self.metrics = metrics
        self.logger = logger
        self.clock = clock
        mustTake = Set(0..<consumer.partitions)
        // An earlier process of this name may have received entries and ended before it claimed them. With few partitions the walk of the
        // pending lists finds these entries within a lease.
        uncertain = consumer.partitions > JobConsumer.visitedPartitions ? mustTake : []
    }

    nonisolated var allPartitions: Set<Int> { Set(0..<consumer.partitions) }

    /// The number of jobs that this worker has, with those that wait for limits of upstreams.
    var inFlight: Int { held.count }
    /// The number of free slots.
    var free: Int { capacity - held.count + min(waitingForLimits.count, waitingMaximum) }
    /// The number of free slots for which no take is in progress.
    var unrequested: Int { free - requested }
    /// Entries per queue that the next blocking read may return: at most one if no further ones fit.
    var waitedAtOnce: Int { unrequested < Self.waitedMaximum ? 1 : Self.waitedMaximum }
    /// The classes that are not paused, highest priority first.
    var classes: [JobClass] { JobClass.allCases.filter { !paused.contains($0) } }
    /// Whether no job waits or runs, as far as the last look at all partitions and the blocking reads show.
    var seesNoJobs: Bool {
        !hasFoundEntries && held.isEmpty && mustTake.isEmpty && unreadable.isEmpty && paused.isEmpty && unrequested > 0
    }

    // MARK: waiting jobs

    /// Claims jobs until `stop` is called or the task is cancelled. Redis errors are logged and retried with back-off.
    func run() async {
        var failures = 0
        while !isStopping, !Task.isCancelled {
            do {
                if mayHaveLostReply { try await startUndelivered() }
                let worked = try await step()
                if worked { failures = 0 }
            } catch {
                mayHaveLostReply = true
                mustTake = allPartitions
                failures += 1
                await recover(from: error, failures: failures)
            }
        }
        await endReads()
    }

    /// One iteration: claims waiting entries, or waits for the next ones.
    /// - Returns: false when there was no free slot or all classes are paused.
    private func step() async throws(QueueError) -> Bool {
        guard unrequested > 0, !classes.isEmpty else {
            await withCheckedContinuation { continuation in
                // Other calls may run on the actor between the check above and this body.
                if isStopping || unrequested > 0 && !classes.isEmpty { continuation.resume() } else { waitingForSlot.append(continuation) }
            }
            return false
        }
        // A signal that arrives meanwhile asks for another take.
        let partitions = mustTake
        mustTake = []
        if !partitions.isEmpty, try await take(from: partitions) {
            // They may have further entries.
        } else if consumer.isCluster {
            await waitInPartitions()
            return true
        } else {
            let entries = try await consumer.wait(
                classes: classes, excluding: Set(unreadable.keys), count: waitedAtOnce,
                milliseconds: Self.waitMilliseconds)
            // With every queue excluded the read returned at once; wait as long as it would have blocked.
            if entries.isEmpty, unreadable.count >= classes.count * consumer.partitions {
                await pause(.milliseconds(Int64(Self.waitMilliseconds)))
            }
            await received(entries)
            // Unreadable queues are looked at again.
            mustTake.formUnion(unreadable.keys.map(\.partition))
        }
        fetchErrors.recovered(logger)
        // Lets the started claims send their commands before the next read. (Task.yield would switch threads twice.)
        await withCheckedContinuation { continuation in consumer.eventLoop.execute { continuation.resume() } }
        return true
    }

    /// Takes up to `takenAtOnce` entries for the free slots and starts them. Partitions that may have further ones are added to `mustTake`.
    /// - Returns: whether there were any.
    private func take(from partitions: Set<Int>) async throws(QueueError) -> Bool {
        var count = 0
        // A class has priority over the next one across all partitions; in a single one the script sees to that.
        for some in consumer.partitions > 1 ? classes.map({ [$0] }) : [classes] {
            for partition in rotated(partitions) where count < Self.takenAtOnce {
                // A server that is not reachable must not delay the others.
                guard consumer.isReachable(partition: partition) else { continue }
                do {
                    let taken = try await take(from: partition, some, Self.takenAtOnce - count)
                    if taken > 0 { mustTake.insert(partition) }
                    count += taken
                } catch {
                    guard consumer.isCluster, !error.isMissingGroup else { throw error }
                    // Nor must one that fails. `startUndelivered` waits for it.
                    uncertain.insert(partition)
                }
            }
        }
        if count >= Self.takenAtOnce || unrequested <= 0 { mustTake.formUnion(partitions) }
        return count > 0
    }

    /// The partitions in an order that begins with another one each time, so that none starves.
    func rotated(_ partitions: Set<Int>) -> [Int] {
        firstPartition = (firstPartition + 1) % consumer.partitions
        let first = firstPartition
        return partitions.sorted { ($0 < first ? 1 : 0, $0) < ($1 < first ? 1 : 0, $1) }
    }

    /// Takes entries from one partition for the free slots and starts them. A queue that cannot be read is logged once and does not prevent
    /// reading the others.
    /// - Returns: the number of entries.
    /// - Throws: the error of a missing consumer group, or when the whole command failed.
    func take(from partition: Int, _ classes: [JobClass], _ maximum: Int) async throws(QueueError) -> Int {
        var taken = JobConsumer.Taken()
        for round in 0...Self.takesRepeated {
            let count = min(unrequested, maximum)
            guard count > 0, !isStopping else { return 0 }
            requested += count
            defer {
                requested -= count
                // `run` may wait for one of them.
                wakeIfFree()
            }
            taken = try await consumer.take(
                partition: partition, classes: classes, count: count, isForced: round == Self.takesRepeated)
            guard taken.isEmpty, taken.isIncomplete else { break }
        }
        // Only an empty result proves that every queue was read: otherwise those after the last entry may have been skipped.
        for priority in classes where taken.isEmpty && !taken.faults.contains(where: { $0.priority == priority }) {
            let queue = QueueLocation(priority, partition: partition)
            if var errorLog = unreadable.removeValue(forKey: queue) { errorLog.recovered(logger) }
        }
        // Entries that were taken belong to this worker, also when another queue could not be read.
        start(taken.expired, leaseExpired: true)
        start(taken.entries, leaseExpired: false)
        for (priority, error) in taken.faults {
            if error.isMissingGroup { throw error }
            metrics.queueUnreadable(priority)
            let queue = QueueLocation(priority, partition: partition)
            let errorLog = OnceLogger("a queue cannot be read; the others are served", over: "the queue can be read again")
            unreadable[queue, default: errorLog].failed(error, logger, ["class": "\(priority)", "partition": "\(partition)"])
        }
        return taken.count
    }

    /// Logs the error, recreates missing consumer groups, and waits with jittered exponential back-off of at most 1 s.
    func recover(from error: QueueError, failures: Int) async {
        if error.isMissingGroup {
            logger.warning("consumer groups are missing; creating them", metadata: ["error": "\(error)"])
            do { return try await consumer.createGroups() } catch {
                logger.debug("failed to create consumer groups", metadata: ["error": "\(error)"])
            }
        } else if error.isRejection || error.isInvalidReply {
            fetchErrors.failed(error, logger)
        }
        let bound = Backoff.bound(from: .milliseconds(40), to: .seconds(1), attempt: failures)
        await pause(TimeAmount(max(.milliseconds(20), bound * Double.random(in: 0...1))))
    }

    // MARK: calls from other types

    /// Takes note of how a job uses its slot. Callable from any thread; returns before it is done.
    nonisolated func slotChanged(_ use: SlotUse, of entry: QueueEntry) {
        consumer.eventLoop.execute {
            self.assumeIsolated { claimer in
                switch use {
                case .occupied: claimer.waitingForLimits.remove(EntryID(entry))
                case .waitsForLimit: claimer.waitingForLimits.insert(EntryID(entry))
                case .released: return claimer.releaseSlot(of: entry)
                }
                claimer.wakeIfFree()
            }
        }
    }

    /// Frees the slot of an entry that this worker does not own.
    func releaseSlot(of entry: QueueEntry) {
        held.remove(EntryID(entry))
        waitingForLimits.remove(EntryID(entry))
        wakeIfFree()
    }

    private func wakeIfFree() {
        guard !waitingForSlot.isEmpty, free > 0 else { return }
        wake()
    }

    /// Keeps an interrupt for a job with a claim in progress; the first one wins. Must be called on the event loop of the claimer, whose
    /// callbacks run on the actor's executor; traps elsewhere.
    /// - Returns: false when no claim of that job is in progress.
    nonisolated func keepInterrupt(_ interrupt: Interrupt) -> Bool {
        assumeIsolated { claimer in
            guard let known = claimer.claiming[interrupt.id] else { return false }
            if known == nil { claimer.claiming[interrupt.id] = interrupt }
            return true
        }
    }

    /// Whether an operator has paused a class.
    func isPaused(_ priority: JobClass) -> Bool { paused.contains(priority) }

    /// Replaces the set of paused classes.
    func pauseClasses(_ classes: Set<JobClass>) async {
        let isAnyResumed = !paused.subtracting(classes).isEmpty
        paused = classes
        guard isAnyResumed else { return }
        mustTake = allPartitions
        wakeIfFree()
        await takeOver(allPartitions)
    }

    /// Stops claiming. A blocking read in progress ends within its timeout of 1 s, in a cluster at once, and its entries are put back.
    func stop() {
        isStopping = true
        wake()
        readEnded()
    }

    func claimBegan() { openClaims += 1 }

    func claimEnded() {
        openClaims -= 1
        guard openClaims == 0 else { return }
        for continuation in waitingForClaims { continuation.resume() }
        waitingForClaims = []
        stopWaitingForReplies()
    }

    /// Returns when no claim is in progress: each has passed its job to the pool or released its slot. After `stop` no further ones begin.
    func waitForClaims() async {
        await withCheckedContinuation { continuation in
            // Other calls may run on the actor before this body does, so a check outside of it would be too early.
            if openClaims == 0 { continuation.resume() } else { waitingForClaims.append(continuation) }
        }
    }

    /// Resumes all waits for a free slot.
    private func wake() {
        for continuation in waitingForSlot { continuation.resume() }
        waitingForSlot = []
    }
}
