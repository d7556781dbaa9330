import Contract
import DequeModule
import Logging
import Upstream

/// Decides whether an upstream may be called now: circuit breakers, concurrency and rate limits of each upstream, counted per worker.
///
/// Not thread-safe: used on the upstream loop only. An unreachable upstream opens its own breaker. Errors of a reachable one count for
/// the requested model only, because the other models may work.
///
/// Jobs that wait for a limit are served in order of arrival: a newcomer is refused while others wait.
final class UpstreamGate {
    /// Permission for one request; must be returned with `release`.
    final class Pass {
        fileprivate let upstream: String
        fileprivate let model: String
        fileprivate let probesUpstream: Bool
        fileprivate let probesModel: Bool
        fileprivate var hasResult = false
        fileprivate var isReleased = false

        fileprivate init(_ candidate: UpstreamRoute.Candidate, probesUpstream: Bool, probesModel: Bool) {
            upstream = candidate.upstream.name
            model = candidate.model
            self.probesUpstream = probesUpstream
            self.probesModel = probesModel
        }
    }

    enum Admission {
        case admitted(Pass)
        /// A circuit breaker is open.
        case refused
        /// A limit is exhausted, or others wait for it. Includes the time after which to try again; the waiter is called earlier if its turn
        /// comes.
        case limited(Duration)
    }

    /// A job's place among those that wait for the limits of upstreams.
    final class Waiter {
        /// Called when it is this job's turn to try again. Must not call the gate before it returns.
        fileprivate let wake: () -> Void
        /// The upstreams in whose queues it waits.
        fileprivate var upstreams: [String] = []

        init(wake: @escaping () -> Void) { self.wake = wake }
    }

    /// Time after which a waiting job tries again although its turn has not come. A safety net: each attempt reads the interrupt key.
    private static let waiting = Duration.seconds(30)

    /// The state of one upstream.
    private struct Entry {
        var breaker = CircuitBreaker()
        /// Breakers by model, kept only while they count failures.
        var models: [String: CircuitBreaker] = [:]
        var running = 0
        var bucket: TokenBucket?
        /// The jobs that wait for a limit, in order of arrival.
        var waiting: Deque<Waiter> = []
        /// The breaker state last written to the metrics; nil before the first.
        var publishedLevel: Int?

        /// The worst state of the upstream's breaker and those of its models.
        var level: Int { models.values.reduce(breaker.level) { max($0, $1.level) } }
    }

    /// Maximum number of model breakers per upstream: model names come from clients.
    private static let maximumModels = 1_000

    private let metrics: WorkerMetrics
    private let logger: Logger
    private var entries: [String: Entry] = [:]

    init(metrics: WorkerMetrics, logger: Logger) {
        self.metrics = metrics
        self.logger = logger
    }

    /// Admits a request if breakers and limits allow it.
    /// - Parameters:
    ///   - isForced: ignores open breakers, but not the limits; for a job that has already backed off and has no other upstream left.
    ///   - waiter: the job's place in the queue of a limit, which it keeps until it is admitted or calls `leave`.
    ///   - now: CLOCK_MONOTONIC ns.
    func admit(_ candidate: UpstreamRoute.Candidate, isForced: Bool, for waiter: Waiter, at now: UInt64) -> Admission {
        let admission = decide(candidate, isForced: isForced, for: waiter, at: now)
        let name = candidate.upstream.name
        switch admission {
        case .admitted:
            leave(waiter)
            // The limit may allow more than one at a time.
            wakeFirst(of: name)
        case .limited:
            guard !waiter.upstreams.contains(name) else { break }
            waiter.upstreams.append(name)
            entries[name]?.waiting.append(waiter)
        // Keeping its place would hold up jobs for other models, whose breakers are closed.
        case .refused: leave(waiter, queueOf: name)
        }
        return admission
    }

    private func decide(_ candidate: UpstreamRoute.Candidate, isForced: Bool, for waiter: Waiter, at now: UInt64) -> Admission {
        var entry = entries[candidate.upstream.name] ?? Entry()
        defer { store(entry, of: candidate.upstream.name) }
        if let first = entry.waiting.first, first !== waiter { return .limited(Self.waiting) }
        if let limit = candidate.upstream.concurrency, entry.running >= limit { return .limited(Self.waiting) }
        let upstream = entry.breaker.admit(at: now)
        let model = upstream == .refused ? .refused : entry.models[candidate.model]?.admit(at: now) ?? .pass
        let isRefused = model == .refused && !isForced
        var wait: Duration?
        if !isRefused, let limit = candidate.upstream.requestsPerMinute {
            if entry.bucket?.perMinute != limit { entry.bucket = TokenBucket(perMinute: limit, now: now) }
            wait = entry.bucket?.take(at: now)
        }
        guard !isRefused, wait == nil else {
            if upstream == .probe { entry.breaker.probeAbandoned(at: now) }
            if model == .probe { entry.models[candidate.model]?.probeAbandoned(at: now) }
            return wait.map { .limited($0) } ?? .refused
        }
        entry.running += 1
        return .admitted(Pass(candidate, probesUpstream: upstream == .probe, probesModel: model == .probe))
    }

    /// Records that the upstream responded: with output, or with an error that does not count against it.
    func succeeded(_ pass: Pass) {
        guard !pass.hasResult, var entry = entries[pass.upstream] else { return }
        pass.hasResult = true
        if max(entry.breaker.level, entry.models[pass.model]?.level ?? 0) > 0 {
            logger.info("circuit breaker closed", metadata: Self.facts(pass))
        }
        entry.breaker.succeeded()
        entry.models[pass.model] = nil
        store(entry, of: pass.upstream)
    }

    /// Records a request that ended without output.
    /// - Parameters:
    ///   - code: the error. `upstreamUnreachable` counts for the upstream, server errors and timeouts for the model, others count as a
    ///     success.
    func failed(_ pass: Pass, _ code: FailureCode, at now: UInt64) {
        guard !pass.hasResult else { return }
        switch code {
        case .upstreamUnreachable:
            pass.hasResult = true
            guard var entry = entries[pass.upstream] else { return }
            let pause = entry.breaker.failed(isProbe: pass.probesUpstream, at: now)
            store(entry, of: pass.upstream)
            if let pause { opened(pass, pause) }
        case .overloaded, .upstreamError, .upstreamDisconnected, .upstreamTruncated, .firstTokenTimeout:
            pass.hasResult = true
            guard var entry = entries[pass.upstream] else { return }
            entry.breaker.succeeded()
            var breaker = entry.models[pass.model] ?? CircuitBreaker()
            let pause = breaker.failed(isProbe: pass.probesModel, at: now)
            if entry.models[pass.model] != nil || entry.models.count < Self.maximumModels { entry.models[pass.model] = breaker }
            store(entry, of: pass.upstream)
            if let pause { opened(pass, pause) }
        // A rejected request shows that the upstream works.
        default: succeeded(pass)
        }
    }

    /// Returns the permission when the request has ended, with or without a result. Idempotent.
    func release(_ pass: Pass, at now: UInt64) {
        guard !pass.isReleased, var entry = entries[pass.upstream] else { return }
        pass.isReleased = true
        entry.running = max(0, entry.running - 1)
        if !pass.hasResult {
            if pass.probesUpstream { entry.breaker.probeAbandoned(at: now) }
            if pass.probesModel { entry.models[pass.model]?.probeAbandoned(at: now) }
        }
        store(entry, of: pass.upstream)
        wakeFirst(of: pass.upstream)
    }

    /// Gives up a job's place in all queues. Does nothing if it does not wait.
    func leave(_ waiter: Waiter) {
        for name in waiter.upstreams { leave(waiter, queueOf: name) }
    }

    private func leave(_ waiter: Waiter, queueOf upstream: String) {
        waiter.upstreams.removeAll { $0 == upstream }
        guard let index = entries[upstream]?.waiting.firstIndex(where: { $0 === waiter }) else { return }
        entries[upstream]?.waiting.remove(at: index)
        if index == 0 { wakeFirst(of: upstream) }
    }

    private func wakeFirst(of upstream: String) { entries[upstream]?.waiting.first?.wake() }

    /// Removes the state of all upstreams except these. The jobs that wait for a removed one try again.
    func removeAll(except names: Set<String>) {
        for (name, entry) in entries where !names.contains(name) {
            entries[name] = nil
            for waiter in entry.waiting {
                waiter.upstreams.removeAll { $0 == name }
                waiter.wake()
            }
        }
    }

    /// Stores an entry and publishes its breaker state if it changed.
    private func store(_ entry: Entry, of upstream: String) {
        var entry = entry
        let level = entry.level
        if entry.publishedLevel != level { metrics.breaker(upstream, state: level) }
        entry.publishedLevel = level
        entries[upstream] = entry
    }

    /// Counts and logs an opened breaker.
    private func opened(_ pass: Pass, _ pause: UInt64) {
        metrics.breakerOpened(pass.upstream)
        var facts = Self.facts(pass)
        facts["pause_ms"] = "\(pause / 1_000_000)"
        logger.warning("circuit breaker opened", metadata: facts)
    }

    private static func facts(_ pass: Pass) -> Logger.Metadata { ["upstream": "\(pass.upstream)", "model": "\(pass.model)"] }
}
