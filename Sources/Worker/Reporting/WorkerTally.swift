import JobQueue
import Metrics
import Synchronization

/// Counters of a worker since its start, for its heartbeat: the Prometheus handlers do not return their values. Thread-safe.
final class WorkerTally: Sendable {
    /// A latency histogram since the start.
    final class Latencies: Sendable {
        private let counts = [40 of Atomic<Int>] { _ in Atomic(0) }

        func record(microseconds: Int) {
            counts[LatencyBuckets.slot(of: microseconds)].wrappingAdd(1, ordering: .relaxed)
        }

        /// A snapshot of the histogram.
        var buckets: LatencyBuckets { LatencyBuckets(counts: (0..<LatencyBuckets.slots).map { counts[$0].load(ordering: .relaxed) }) }
    }

    let tokens = Atomic(0)
    let finished = Atomic(0)
    let interrupted = Atomic(0)
    let failed = Atomic(0)
    let queueWait = Latencies()
    let firstToken = Latencies()
    let interruptClose = Latencies()

    /// Counts a terminal event by its type.
    func ended(_ type: String) {
        switch type {
        case "finished": finished.wrappingAdd(1, ordering: .relaxed)
        case "interrupted": interrupted.wrappingAdd(1, ordering: .relaxed)
        default: failed.wrappingAdd(1, ordering: .relaxed)
        }
    }

    /// A report with the counters since the start; `ReportWindow` adds the rates.
    var report: WorkerReport {
        var report = WorkerReport()
        report.tokens = tokens.load(ordering: .relaxed)
        report.finished = finished.load(ordering: .relaxed)
        report.interrupted = interrupted.load(ordering: .relaxed)
        report.failed = failed.load(ordering: .relaxed)
        report.queueWait = queueWait.buckets
        report.firstToken = firstToken.buckets
        report.interruptClose = interruptClose.buckets
        return report
    }
}

/// Counts relayed tokens for Prometheus and for the heartbeat.
struct TokenCounter: Sendable {
    private let counter = Counter(label: "sluice_tokens_relayed_total")
    private let tally: WorkerTally

    init(_ tally: WorkerTally) { self.tally = tally }

    func increment(by count: Int) {
        counter.increment(by: count)
        tally.tokens.wrappingAdd(count, ordering: .relaxed)
    }
}

/// Derives recent rates and latencies from counters since the start.
struct ReportWindow {
    /// Window of the rates, in nanoseconds.
    static let rates: UInt64 = 10_000_000_000
    /// Window of the latencies, in nanoseconds.
    static let latencies: UInt64 = 60_000_000_000
    /// Maximum number of stored reports, whatever the reporting interval.
    private static let maximum = 240

    private var earlier: [(at: UInt64, report: WorkerReport)] = []

    /// Adds a report and computes its recent figures.
    /// - Parameters:
    ///   - report: counters since the start.
    ///   - now: CLOCK_MONOTONIC ns.
    /// - Returns: the report with rates, and with the latencies of the last minute only.
    mutating func lately(_ report: WorkerReport, at now: UInt64) -> WorkerReport {
        // The newest report outside a window is the start of that window.
        while earlier.count > 1, now &- earlier[1].at >= Self.latencies || earlier.count > Self.maximum { earlier.removeFirst() }
        var lately = report
        if let base = earlier.last(where: { now &- $0.at >= Self.rates }) ?? earlier.first, now > base.at {
            let seconds = Double(now &- base.at) / 1e9
            func ended(_ report: WorkerReport) -> Int { report.finished + report.interrupted + report.failed }
            lately.tokensPerSecond = Double(report.tokens - base.report.tokens) / seconds
            lately.jobsPerSecond = Double(ended(report) - ended(base.report)) / seconds
        }
        if let base = earlier.first?.report {
            lately.queueWait = report.queueWait - base.queueWait
            lately.firstToken = report.firstToken - base.firstToken
            lately.interruptClose = report.interruptClose - base.interruptClose
        }
        earlier.append((now, report))
        return lately
    }
}
