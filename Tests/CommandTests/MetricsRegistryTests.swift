import CoreMetrics
import Foundation
import TestSupport
import Testing

@testable import Observability

@Suite("Metrics")
struct MetricsRegistryTests {
    private func text(_ registry: MetricsRegistry) -> [String] {
        PrometheusText.render(registry, process: nil).split(separator: "\n").map(String.init)
    }

    @Test func `counters and gauges`() {
        let registry = MetricsRegistry()
        let counter = Counter(
            label: "sluice_jobs_finished_total", dimensions: [("outcome", "finished"), ("class", "batch")], factory: registry)
        counter.increment(by: 41)
        Counter(label: "sluice_jobs_finished_total", dimensions: [("class", "batch"), ("outcome", "finished")], factory: registry)
            .increment()
        let gauge = Gauge(label: "sluice.in-flight", factory: registry)
        gauge.record(7)
        gauge.record(2.5)
        Meter(label: "sluice_meter", factory: registry).increment(by: 3)
        let lines = text(registry)
        #expect(lines.contains("# TYPE sluice_jobs_finished_total counter"))
        #expect(lines.contains(#"sluice_jobs_finished_total{class="batch",outcome="finished"} 42"#))
        #expect(lines.contains("# TYPE sluice_in_flight gauge"))
        #expect(lines.contains("sluice_in_flight 2.5"))
        #expect(lines.contains("sluice_meter 3"))
        #expect(lines.count { $0.hasPrefix("# TYPE sluice_jobs_finished_total") } == 1)
    }

    @Test func `metrics have HELP texts, and no counter has a gauge's name`() throws {
        let registry = MetricsRegistry()
        Counter(label: "sluice_jobs_claimed_total", factory: registry).increment()
        let lines = text(registry)
        #expect(lines.contains("# HELP sluice_jobs_claimed_total Jobs claimed"))
        // OpenMetrics names a counter's family without the suffix.
        let names = Set(MetricHelp.texts.keys)
        #expect(names.allSatisfy { !$0.hasSuffix("_total") || !names.contains(String($0.dropLast(6))) })
        #expect(MetricHelp.texts.values.allSatisfy { !$0.isEmpty && !$0.contains("\n") && !$0.contains("\\") })
    }

    @Test func `every documented metric has a HELP text`() throws {
        let article = try String(contentsOf: Repository.root.appending(path: "Sources/sluice/sluice.docc/Metrics.md"), encoding: .utf8)
        let names = article.split(separator: "\n").compactMap { $0.prefixMatch(of: /\| `(sluice_[a-z0-9_]+)`/).map { String($0.output.1) } }
        #expect(names.count > 40)
        #expect(names.filter { MetricHelp.texts[$0] == nil } == [])
    }

    @Test func `histograms are cumulative`() {
        let registry = MetricsRegistry()
        let timer = CoreMetrics.Timer(label: "sluice_wait_seconds", dimensions: [("class", "batch")], factory: registry)
        for microseconds in [50, 100, 101, 3_000, 20_000_000] { timer.recordMicroseconds(microseconds) }
        let lines = text(registry)
        #expect(lines.contains("# TYPE sluice_wait_seconds histogram"))
        #expect(lines.contains(#"sluice_wait_seconds_bucket{class="batch",le="0.0001"} 2"#))
        #expect(lines.contains(#"sluice_wait_seconds_bucket{class="batch",le="0.00025"} 3"#))
        #expect(lines.contains(#"sluice_wait_seconds_bucket{class="batch",le="0.005"} 4"#))
        #expect(lines.contains(#"sluice_wait_seconds_bucket{class="batch",le="10"} 4"#))
        #expect(lines.contains(#"sluice_wait_seconds_bucket{class="batch",le="+Inf"} 5"#))
        #expect(lines.contains(#"sluice_wait_seconds_count{class="batch"} 5"#))
        #expect(lines.contains { $0.hasPrefix(#"sluice_wait_seconds_sum{class="batch"} 20.003"#) })
    }

    @Test func `labels are escaped`() {
        let registry = MetricsRegistry()
        Counter(label: "9 bad name", dimensions: [("la-bel", "a\"b\\c\nd")], factory: registry).increment()
        #expect(text(registry).contains(#"__bad_name{la_bel="a\"b\\c\nd"} 1"#))
    }

    @Test func `series beyond the limit are counted and dropped`() {
        let registry = MetricsRegistry(maximumSeries: 10)
        for number in 0..<25 { Counter(label: "many", dimensions: [("id", "\(number)")], factory: registry).increment() }
        let lines = text(registry)
        #expect(lines.count { $0.hasPrefix("many{") } == 10)
        #expect(lines.contains("sluice_metrics_series_refused_total 15"))
    }

    @Test func `a name has one type`() {
        let registry = MetricsRegistry()
        Counter(label: "name", factory: registry).increment()
        Gauge(label: "name", factory: registry).record(5)
        CoreMetrics.Timer(label: "name", factory: registry).recordNanoseconds(5)
        let lines = text(registry)
        #expect(lines.contains("name 1"))
        #expect(lines.count { $0.hasPrefix("# TYPE name ") } == 1)
        #expect(lines.contains("sluice_metrics_series_refused_total 2"))
    }

    @Test func `concurrent counts are not lost`() async {
        let registry = MetricsRegistry()
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    let counter = Counter(label: "counted", factory: registry)
                    let meter = Meter(label: "metered", factory: registry)
                    for _ in 0..<5_000 {
                        counter.increment()
                        meter.increment(by: 1)
                    }
                }
            }
        }
        #expect(text(registry).contains("counted 20000"))
        #expect(text(registry).contains("metered 20000"))
    }

    @Test func `process metrics are present`() throws {
        let process = try #require(ProcessMetrics.read())
        #expect(process.residentBytes > 1 << 20)
        #expect(process.openDescriptors > 2)
        #expect(process.threads > 0)
        #expect(process.startTime > 1.7e9)
        let lines = prometheusText().split(separator: "\n")
        #expect(lines.contains { $0.hasPrefix("sluice_build_info{") && $0.hasSuffix(" 1") })
        #expect(lines.contains { $0.hasPrefix("process_resident_memory_bytes ") })
    }
}
