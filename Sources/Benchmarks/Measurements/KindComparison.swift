import Contract
import JSONCodec
import Upstream

/// The worker's CPU time per relayed token for each kind of upstream, relative to OpenAI's.
package struct KindComparison {
    private var found = BenchReport("relay by kind")
    private var baseline: Double?

    package init(streams: Int, gap: Double) {
        found.set("streams", .integer(streams))
        found.set("gap_ms", .number(BenchReport.rounded(gap)))
    }

    /// Adds the report of a kind. OpenAI's must be added first, as the others are compared with it.
    package mutating func add(_ kind: UpstreamConfiguration.Kind, _ report: BenchReport) {
        guard let cost = report.figure("worker_cpu_us_per_token") else { return }
        let name = kind.rawValue
        found.add("\(name)_cpu_us_per_token", "\(name): CPU per token", cost, "µs")
        if kind == .openai { baseline = cost }
        if let baseline, baseline > 0 { found.add("\(name)_to_openai", "\(name): relative to openai", cost / baseline, "") }
    }

    package var report: BenchReport { found }
}
