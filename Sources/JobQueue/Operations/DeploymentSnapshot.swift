import Contract
import JSONCodec
import Support

/// The state of a deployment at one moment, as read from Redis. Its size does not depend on the number of jobs.
package struct DeploymentSnapshot: Sendable, Equatable {
    /// The jobs of one class, all partitions together.
    package struct Queue: Sendable, Equatable {
        package var priority: JobClass
        /// Jobs that no worker runs.
        package var waiting = 0
        /// Jobs delivered to workers.
        package var running = 0
        /// Entries not yet delivered, as counted by Redis; nil when Redis does not know the number.
        package var lag: Int? = 0
        /// Waiting time of the oldest undelivered job; nil when none waits.
        package var oldestWaitMilliseconds: Int?
        package var isPaused = false

        package init(priority: JobClass) { self.priority = priority }
    }

    /// A live worker and its last report.
    package struct Worker: Sendable, Equatable {
        package var name: String
        package var report: WorkerReport

        package init(name: String, report: WorkerReport) {
            self.name = name
            self.report = report
        }
    }

    /// A live gateway, as described by its heartbeat.
    package struct Gateway: Sendable, Equatable {
        package var name: String
        /// Running requests.
        package var inFlight = 0
        package var sockets = 0
        /// Maximum number of sockets.
        package var capacity = 0
        package var isDraining = false
        package var version = ""
        /// Since 1970.
        package var startedMilliseconds = 0

        package init(name: String) { self.name = name }

        init(name: String, fields: [String: String]) {
            func integer(_ field: String) -> Int { fields[field].flatMap { Int($0)?.boundedCount } ?? 0 }
            self.name = name
            inFlight = integer("in_flight")
            sockets = integer("sockets")
            capacity = integer("capacity")
            isDraining = fields["draining"] == "1"
            version = (fields["version"] ?? "").cut(toBytes: WorkerReport.maximumVersion)
            startedMilliseconds = integer("started")
        }
    }

    /// Maximum number of jobs in `slowest`.
    private static let slowestCount = 50

    /// The time of the snapshot on the Redis server's clock, since 1970.
    package var milliseconds: Int
    package var queues: [Queue]
    package var workers: [Worker] = []
    package var gateways: [Gateway] = []
    package var dead = 0
    package var webhooks = Webhooks()
    /// Partitions of a cluster that are missing in the sums, because their server does not answer.
    package var unreadPartitions = 0
    /// Whether nodes and paused classes could be read. False only in a cluster, when the server that has them does not answer.
    package var areNodesKnown = true

    /// The webhooks of all partitions.
    package struct Webhooks: Sendable, Equatable {
        /// Not delivered yet.
        package var waiting = 0
        /// Those of them that failed at least once.
        package var failing = 0
        /// Given up in the last days.
        package var dead = 0
        /// The text and the time of the last failed delivery, in milliseconds since 1970; nil: none in the last day.
        package var lastError: (text: String, milliseconds: Int)?

        package init() {}

        package static func == (left: Self, right: Self) -> Bool {
            (left.waiting, left.failing, left.dead) == (right.waiting, right.failing, right.dead)
                && left.lastError?.text == right.lastError?.text && left.lastError?.milliseconds == right.lastError?.milliseconds
        }
    }

    package init(milliseconds: Int, queues: [Queue] = JobClass.allCases.map { Queue(priority: $0) }) {
        self.milliseconds = milliseconds
        self.queues = queues
    }

    /// The sum over all workers, bounded like each worker's value, because heartbeats may hold any number.
    private func sum(_ value: (WorkerReport) -> Int) -> Int {
        workers.reduce(0) { $0.saturatingAdding(value($1.report)) }.boundedCount
    }

    private func sum(_ value: (WorkerReport) -> Double) -> Double { workers.reduce(0) { $0 + value($1.report) }.boundedRate }

    private func all(_ buckets: (WorkerReport) -> LatencyBuckets) -> LatencyBuckets {
        workers.reduce(LatencyBuckets()) { $0 + buckets($1.report) }
    }

    package var waiting: Int { queues.reduce(0) { $0.saturatingAdding($1.waiting) }.boundedCount }
    package var running: Int { queues.reduce(0) { $0.saturatingAdding($1.running) }.boundedCount }
    package var capacity: Int { sum(\.capacity) }
    package var tokensPerSecond: Double { sum(\.tokensPerSecond) }
    package var jobsPerSecond: Double { sum(\.jobsPerSecond) }
    /// Since the start of the workers that are alive.
    package var finished: Int { sum(\.finished) }
    package var interrupted: Int { sum(\.interrupted) }
    package var failed: Int { sum(\.failed) }
    /// Over the last minute.
    package var queueWait: LatencyBuckets { all(\.queueWait) }
    package var firstToken: LatencyBuckets { all(\.firstToken) }
    package var interruptClose: LatencyBuckets { all(\.interruptClose) }
    /// The longest-running jobs, ordered by their time of submission.
    package var slowest: [RunningJob] {
        let jobs = workers.flatMap(\.report.slowest)
        return Array(jobs.sorted { ($0.submittedMilliseconds, $0.id) < ($1.submittedMilliseconds, $1.id) }.prefix(Self.slowestCount))
    }
}

extension DeploymentSnapshot.Webhooks {
    fileprivate var json: JSON {
        [
            "waiting": .integer(waiting), "failing": .integer(failing), "dead": .integer(dead),
            "last_error": lastError.map { .string($0.text) } ?? .null,
            "last_error_ms": lastError.map { .integer($0.milliseconds) } ?? .null,
        ]
    }
}

extension DeploymentSnapshot {
    /// The snapshot as `sluice status --json` and the dashboard show it.
    package var json: JSON {
        [
            "time_ms": .integer(milliseconds), "queues": .array(queues.map(\.json)), "workers": .array(workers.map(\.json)),
            "gateways": .array(gateways.map(\.json)), "dead": .integer(dead), "webhooks": webhooks.json,
            "rates": ["tokens_per_second": Self.rate(tokensPerSecond), "jobs_per_second": Self.rate(jobsPerSecond)],
            "totals": [
                "tokens": .integer(sum(\.tokens)), "finished": .integer(finished), "interrupted": .integer(interrupted),
                "failed": .integer(failed),
            ],
            "latencies": [
                "queue_wait": queueWait.json, "first_token": firstToken.json, "interrupt_close": interruptClose.json,
            ],
            "slowest": .array(slowest.map { $0.json(now: milliseconds) }),
            "unread_partitions": .integer(unreadPartitions), "nodes_known": .bool(areNodesKnown),
        ]
    }

    fileprivate static func rate(_ rate: Double) -> JSON { .number(WorkerReport.text(rate)) }
}

extension LatencyBuckets {
    /// Number of values and percentiles, in microseconds, over the last minute.
    fileprivate var json: JSON {
        func percentile(_ part: Double) -> JSON { quantile(part).map { JSON.integer($0) } ?? .null }
        return ["count": .integer(total), "p50_us": percentile(0.5), "p90_us": percentile(0.9), "p99_us": percentile(0.99)]
    }
}

extension DeploymentSnapshot.Queue {
    fileprivate var json: JSON {
        [
            "class": .string(priority.rawValue), "waiting": .integer(waiting), "running": .integer(running),
            "lag": lag.map { .integer($0) } ?? .null, "oldest_wait_ms": oldestWaitMilliseconds.map { .integer($0) } ?? .null,
            "paused": .bool(isPaused),
        ]
    }
}

extension DeploymentSnapshot.Worker {
    fileprivate var json: JSON {
        [
            "name": .string(name), "capacity": .integer(report.capacity), "in_flight": .integer(report.inFlight),
            "draining": .bool(report.isDraining), "version": .string(report.version), "started": .integer(report.startedMilliseconds),
            "tokens": .integer(report.tokens), "finished": .integer(report.finished), "interrupted": .integer(report.interrupted),
            "failed": .integer(report.failed), "tokens_per_second": DeploymentSnapshot.rate(report.tokensPerSecond),
            "jobs_per_second": DeploymentSnapshot.rate(report.jobsPerSecond),
        ]
    }
}

extension DeploymentSnapshot.Gateway {
    fileprivate var json: JSON {
        [
            "name": .string(name), "capacity": .integer(capacity), "sockets": .integer(sockets), "in_flight": .integer(inFlight),
            "draining": .bool(isDraining), "version": .string(version), "started": .integer(startedMilliseconds),
        ]
    }
}
