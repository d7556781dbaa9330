import Contract
import Logging
import Upstream

/// Who may be dialled now: circuit breakers and the limits of each upstream, counted in this worker. Lives on the loop.
///
/// An upstream that cannot be reached is kept out as a whole. One that answers is judged by the model: a model that is out of order says
/// nothing of the others.
final class UpstreamGate {
    /// Leave to dial, to be given back with `release`.
    final class Pass {
        fileprivate let upstream: String
        fileprivate let model: String
        fileprivate let probesUpstream: Bool
        fileprivate let probesModel: Bool
        fileprivate var isJudged = false
        fileprivate var isReleased = false

        fileprivate init(_ stop: UpstreamRoute.Stop, probesUpstream: Bool, probesModel: Bool) {
            upstream = stop.upstream.name
            model = stop.model
            self.probesUpstream = probesUpstream
            self.probesModel = probesModel
        }
    }

    enum Admission {
        case admitted(Pass)
        /// With the least wait that makes sense.
        case refused(Duration)
    }

    private struct Entry {
        var breaker = CircuitBreaker()
        /// By model; only those with something against them.
        var models: [String: CircuitBreaker] = [:]
        var running = 0
        var bucket: TokenBucket?
        /// What was last told of its breakers; nil: nothing yet.
        var shown: Int?

        var level: Int { models.values.reduce(breaker.level) { max($0, $1.level) } }
    }

    /// Models watched of one upstream: names come from clients.
    private static let watchedModels = 1_000

    private let metrics: WorkerMetrics
    private let logger: Logger
    private var entries: [String: Entry] = [:]

    init(metrics: WorkerMetrics, logger: Logger) {
        self.metrics = metrics
        self.logger = logger
    }

    /// - Parameter isForced: an open breaker does not count: nothing else is left, and the job has waited.
    func admit(_ stop: UpstreamRoute.Stop, isForced: Bool, at now: UInt64) -> Admission {
        var entry = entries[stop.upstream.name] ?? Entry()
        defer { keep(entry, of: stop.upstream.name) }
        if let limit = stop.upstream.concurrency, entry.running >= limit { return .refused(.milliseconds(20)) }
        let upstream = entry.breaker.admit(at: now)
        let model = upstream == .refused ? .refused : entry.models[stop.model]?.admit(at: now) ?? .pass
        let isRefused = model == .refused && !isForced
        var wait: Duration?
        if !isRefused, let limit = stop.upstream.requestsPerMinute {
            if entry.bucket?.perMinute != limit { entry.bucket = TokenBucket(perMinute: limit, now: now) }
            wait = entry.bucket?.take(at: now)
        }
        guard !isRefused, wait == nil else {
            if upstream == .probe { entry.breaker.probeAbandoned(at: now) }
            if model == .probe { entry.models[stop.model]?.probeAbandoned(at: now) }
            return .refused(wait ?? .zero)
        }
        entry.running += 1
        return .admitted(Pass(stop, probesUpstream: upstream == .probe, probesModel: model == .probe))
    }

    /// It generates, or has said that it will not: it is alive.
    func succeeded(_ pass: Pass) {
        guard !pass.isJudged, var entry = entries[pass.upstream] else { return }
        pass.isJudged = true
        if !entry.breaker.isUntroubled || entry.models[pass.model] != nil { logger.info("upstream is well", metadata: Self.facts(pass)) }
        entry.breaker.succeeded()
        entry.models[pass.model] = nil
        keep(entry, of: pass.upstream)
    }

    /// - Parameter code: why there was no output.
    func failed(_ pass: Pass, _ code: FailureCode, at now: UInt64) {
        guard !pass.isJudged else { return }
        switch code {
        case .upstreamUnreachable:
            pass.isJudged = true
            guard var entry = entries[pass.upstream] else { return }
            let pause = entry.breaker.failed(isProbe: pass.probesUpstream, at: now)
            keep(entry, of: pass.upstream)
            if let pause { opened(pass, pause) }
        case .overloaded, .upstreamError, .upstreamDisconnected, .upstreamTruncated, .firstTokenTimeout:
            pass.isJudged = true
            guard var entry = entries[pass.upstream] else { return }
            entry.breaker.succeeded()
            var breaker = entry.models[pass.model] ?? CircuitBreaker()
            let pause = breaker.failed(isProbe: pass.probesModel, at: now)
            if entry.models[pass.model] != nil || entry.models.count < Self.watchedModels { entry.models[pass.model] = breaker }
            keep(entry, of: pass.upstream)
            if let pause { opened(pass, pause) }
        // A refusal is an answer.
        default: succeeded(pass)
        }
    }

    /// The request is over, however it ended.
    func release(_ pass: Pass, at now: UInt64) {
        guard !pass.isReleased, var entry = entries[pass.upstream] else { return }
        pass.isReleased = true
        entry.running = max(0, entry.running - 1)
        if !pass.isJudged {
            if pass.probesUpstream { entry.breaker.probeAbandoned(at: now) }
            if pass.probesModel { entry.models[pass.model]?.probeAbandoned(at: now) }
        }
        keep(entry, of: pass.upstream)
    }

    /// Forgets all upstreams but these.
    func keep(_ names: Set<String>) { entries = entries.filter { names.contains($0.key) } }

    private func keep(_ entry: Entry, of upstream: String) {
        var entry = entry
        let level = entry.level
        if entry.shown != level { metrics.breaker(upstream, state: level) }
        entry.shown = level
        entries[upstream] = entry
    }

    private func opened(_ pass: Pass, _ pause: UInt64) {
        metrics.breakerOpened(pass.upstream)
        var facts = Self.facts(pass)
        facts["pause_ms"] = "\(pause / 1_000_000)"
        logger.warning("upstream is kept out", metadata: facts)
    }

    private static func facts(_ pass: Pass) -> Logger.Metadata { ["upstream": "\(pass.upstream)", "model": "\(pass.model)"] }
}
