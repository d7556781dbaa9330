import Contract
import JSONCodec
import Support

/// A running job, listed among a worker's slowest.
package struct RunningJob: Sendable, Equatable {
    package var id: String
    package var priority: String
    package var model: String
    package var phase: String
    package var upstream: String
    package var attempt = 1
    /// Tokens generated so far, as far as known.
    package var tokens = 0
    /// Time of submission on the Redis server's clock, since 1970.
    package var submittedMilliseconds: Int
    /// The worker whose report lists the job.
    package var worker = ""

    /// Maximum length of a class or phase name in bytes.
    private static let maximumName = 60

    package init(
        id: String, priority: String, model: String, phase: String, upstream: String, attempt: Int, tokens: Int, submittedMilliseconds: Int
    ) {
        self.id = id.cut(toBytes: NameLimit.id)
        self.priority = priority.cut(toBytes: Self.maximumName)
        self.model = model.cut(toBytes: NameLimit.model)
        self.phase = phase.cut(toBytes: Self.maximumName)
        self.upstream = upstream.cut(toBytes: NameLimit.model)
        self.attempt = attempt.boundedCount
        self.tokens = tokens.boundedCount
        self.submittedMilliseconds = submittedMilliseconds.boundedCount
    }

    init?(_ json: JSON) {
        guard let id = json["id"]?.string, let submitted = json["submitted_ms"]?.count else { return nil }
        func text(_ name: String) -> String { json[name]?.string ?? "" }
        self.init(
            id: id, priority: text("class"), model: text("model"), phase: text("phase"), upstream: text("upstream"),
            attempt: json["attempt"]?.count ?? 1, tokens: json["tokens"]?.count ?? 0, submittedMilliseconds: submitted)
    }

    /// - Parameter now: the time on the Redis server's clock, since 1970; nil to omit age and worker.
    func json(now: Int?) -> JSON {
        var members = JSONObject()
        members["id"] = .string(id)
        members["class"] = .string(priority)
        members["model"] = .string(model)
        members["phase"] = .string(phase)
        members["upstream"] = .string(upstream)
        members["attempt"] = .integer(attempt)
        members["tokens"] = .integer(tokens)
        members["submitted_ms"] = .integer(submittedMilliseconds)
        if let now {
            members["age_ms"] = .integer(max(0, now.saturatingSubtracting(submittedMilliseconds)))
            members["worker"] = .string(worker)
        }
        return .object(members)
    }
}

/// A worker's description of itself in its heartbeat: about a kilobyte, independent of its load.
package struct WorkerReport: Sendable, Equatable {
    /// Maximum number of jobs in `slowest`, those submitted longest ago.
    package static let slowestCount = 8
    /// Maximum length of a version in bytes; longer ones are cut.
    static let maximumVersion = 64
    /// Maximum number of models in a report.
    private static let maximumModels = 64

    package var capacity = 0
    package var inFlight = 0
    package var isDraining = false
    package var version = ""
    /// Since 1970.
    package var startedMilliseconds = 0
    /// Since its start.
    package var tokens = 0
    package var finished = 0
    package var interrupted = 0
    package var failed = 0
    /// Over the last ten seconds.
    package var tokensPerSecond = 0.0
    package var jobsPerSecond = 0.0
    /// Over the last minute.
    package var queueWait = LatencyBuckets()
    package var firstToken = LatencyBuckets()
    package var interruptClose = LatencyBuckets()
    package var slowest: [RunningJob] = []
    /// The models and aliases that the worker's upstreams list, at most 64 of at most 256 bytes; empty when an upstream serves any model.
    package var models: [String] = [] {
        didSet { models = Array(models.filter { $0.utf8.count <= NameLimit.model }.prefix(Self.maximumModels)) }
    }

    /// Those of `models` whose upstream counts tokens; `anyModel` when such an upstream serves any model.
    package var countedModels: [String] = [] {
        didSet { countedModels = Array(countedModels.filter { $0.utf8.count <= NameLimit.model }.prefix(Self.maximumModels)) }
    }
    package static let anyModel = "*"

    package init() {}

    /// Whether this report tells more than `written`, an earlier one of the same worker. Durations that have left the last minute are no news: a
    /// worker at rest would tell of them each second for a minute.
    package func isNews(after written: WorkerReport) -> Bool {
        let histograms = [\WorkerReport.queueWait, \.firstToken, \.interruptClose]
        guard histograms.allSatisfy({ !self[keyPath: $0].hasMore(than: written[keyPath: $0]) }) else { return true }
        var other = written
        for histogram in histograms { other[keyPath: histogram] = self[keyPath: histogram] }
        return self != other
    }

    /// The fields of the heartbeat's hash.
    package var fields: [(name: String, value: String)] {
        [
            ("capacity", String(capacity)), ("in_flight", String(inFlight)), ("draining", isDraining ? "1" : "0"), ("version", version),
            ("started", String(startedMilliseconds)), ("tokens", String(tokens)), ("finished", String(finished)),
            ("interrupted", String(interrupted)), ("failed", String(failed)), ("tokens_per_second", Self.text(tokensPerSecond)),
            ("jobs_per_second", Self.text(jobsPerSecond)), ("queue_wait", queueWait.text), ("first_token", firstToken.text),
            ("interrupt_close", interruptClose.text), ("slowest", JSON.array(slowest.map { $0.json(now: nil) }).text),
            ("models", JSON.array(models.map { .string($0) }).text),
            ("counted_models", JSON.array(countedModels.map { .string($0) }).text),
        ]
    }

    /// - Parameters:
    ///   - worker: the worker's name, for the jobs in `slowest`.
    ///   - fields: the heartbeat's hash. Missing fields (of another version) become 0 or empty.
    package init(worker: String, fields: [String: String]) {
        func integer(_ name: String) -> Int { fields[name].flatMap { Int($0)?.boundedCount } ?? 0 }
        func number(_ name: String) -> Double { fields[name].flatMap { Double($0)?.boundedRate } ?? 0 }
        capacity = integer("capacity")
        inFlight = integer("in_flight")
        isDraining = fields["draining"] == "1"
        version = (fields["version"] ?? "").cut(toBytes: Self.maximumVersion)
        startedMilliseconds = integer("started")
        tokens = integer("tokens")
        finished = integer("finished")
        interrupted = integer("interrupted")
        failed = integer("failed")
        tokensPerSecond = number("tokens_per_second")
        jobsPerSecond = number("jobs_per_second")
        queueWait = LatencyBuckets(parsing: fields["queue_wait"])
        firstToken = LatencyBuckets(parsing: fields["first_token"])
        interruptClose = LatencyBuckets(parsing: fields["interrupt_close"])
        let listed = (try? JSON(parsing: fields["slowest"] ?? "[]"))?.array ?? []
        slowest = listed.prefix(Self.slowestCount).compactMap { RunningJob($0) }
        for index in slowest.indices { slowest[index].worker = worker }
        models = Self.models(parsing: fields["models"])
    }

    /// The models in a heartbeat's field.
    static func models(parsing text: String?) -> [String] {
        var report = WorkerReport()
        report.models = (try? JSON(parsing: text ?? "[]"))?.array?.compactMap(\.string) ?? []
        return report.models
    }

    /// The rate rounded to a tenth, for example `12` or `12.5`.
    static func text(_ rate: Double) -> String {
        let tenths = Int(bounding: (rate * 10).rounded())
        return tenths % 10 == 0 ? String(tenths / 10) : "\(tenths / 10).\(tenths % 10)"
    }
}
