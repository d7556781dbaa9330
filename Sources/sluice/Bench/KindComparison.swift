import Contract
import JSONCodec
import Upstream

/// What a relayed token costs the worker with each kind of upstream, beside OpenAI's.
struct KindComparison {
    private var found = BenchReport("relay by kind")
    private var baseline: Double?

    init(streams: Int, gap: Double) {
        found.set("streams", .integer(streams))
        found.set("gap_ms", .number(BenchReport.rounded(gap)))
    }

    /// OpenAI's comes first: the others are compared with it.
    mutating func add(_ kind: UpstreamConfiguration.Kind, _ report: BenchReport) {
        guard let cost = report.figure("worker_cpu_us_per_token") else { return }
        let name = kind.rawValue
        found.add("\(name)_cpu_us_per_token", "\(name): CPU a token", cost, "µs")
        if kind == .openai { baseline = cost }
        if let baseline, baseline > 0 { found.add("\(name)_to_openai", "\(name): against openai", cost / baseline, "") }
    }

    var report: BenchReport { found }
}
