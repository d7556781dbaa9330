import Contract
import Logging
import Upstream

/// The circuit breakers of the upstreams, per worker.
///
/// Not thread-safe: used on the upstream loop only. An unreachable upstream opens its own breaker. Errors of a reachable one count for
/// the requested model only, because the other models may work.
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
    }

    /// The state of one upstream.
    private struct Entry {
        var breaker = CircuitBreaker()
        /// Breakers by model, kept only while they count failures.
        var models: [String: CircuitBreaker] = [:]
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

    /// Whether a request would be refused now. Nothing is reserved for it.
    /// - Parameters:
    ///   - isForced: ignores open breakers; for a job that has already backed off and has no other upstream left.
    ///   - now: CLOCK_MONOTONIC ns.
    func refuses(_ candidate: UpstreamRoute.Candidate, isForced: Bool, at now: UInt64) -> Bool {
        guard !isForced, var entry = entries[candidate.upstream.name] else { return false }
        return entry.breaker.admit(at: now) == .refused || entry.models[candidate.model]?.admit(at: now) == .refused
    }

    /// Admits a request if the breakers allow it.
    func admit(_ candidate: UpstreamRoute.Candidate, isForced: Bool, at now: UInt64) -> Admission {
        var entry = entries[candidate.upstream.name] ?? Entry()
        defer { store(entry, of: candidate.upstream.name) }
        let upstream = entry.breaker.admit(at: now)
        let model = upstream == .refused ? .refused : entry.models[candidate.model]?.admit(at: now) ?? .pass
        guard model != .refused || isForced else {
            if upstream == .probe { entry.breaker.probeAbandoned(at: now) }
            return .refused
        }
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
        if !pass.hasResult {
            if pass.probesUpstream { entry.breaker.probeAbandoned(at: now) }
            if pass.probesModel { entry.models[pass.model]?.probeAbandoned(at: now) }
        }
        store(entry, of: pass.upstream)
    }

    /// Removes the state of all upstreams except these.
    func removeAll(except names: Set<String>) { entries = entries.filter { names.contains($0.key) } }

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
