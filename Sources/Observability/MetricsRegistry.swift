import CoreMetrics
import Synchronization

/// All metrics of the process, a swift-metrics backend for Prometheus.
///
/// The name of a metric is its label; characters that Prometheus does not allow become `_`. Modules use full names in base units, such as
/// `sluice_redis_reconnects_total`. A timer becomes a histogram in seconds, an aggregating recorder a histogram in the unit of its suffix
/// (`_seconds`, `_bytes`, otherwise a plain number). Values are atomics: recording takes no lock, creating a metric takes one.
package final class MetricsRegistry: MetricsFactory {
    package static let shared = MetricsRegistry()

    /// Maximum number of series, the combinations of name and labels, which are kept until the process ends. Further ones are counted in
    /// `refused` and otherwise ignored.
    package static let maximumSeries = 2_000
    /// Maximum length of a label's value in characters; longer ones are cut.
    private static let maximumLabelLength = 200

    /// One combination of name and labels.
    enum Series: Sendable {
        case counter(CounterSeries)
        case gauge(GaugeSeries)
        case histogram(HistogramSeries)

        var type: String {
            switch self {
            case .counter: "counter"
            case .gauge: "gauge"
            case .histogram: "histogram"
            }
        }
    }

    /// All series with one name; they have the same type.
    struct Family: Sendable {
        let type: String
        /// The series by their rendered labels.
        var series: [String: Series] = [:]
    }

    private struct State {
        var families: [String: Family] = [:]
        var count = 0
    }

    private let state = Mutex(State())
    private let maximum: Int
    /// Counts rejected series: the maximum was reached, or the name belongs to a metric of another type.
    let refused = CounterSeries()

    package init(maximumSeries: Int = MetricsRegistry.maximumSeries) {
        maximum = maximumSeries
    }

    var families: [String: Family] { state.withLock { $0.families } }

    // MARK: MetricsFactory

    package func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
        guard case .counter(let series) = find(label, dimensions, or: { .counter(CounterSeries()) }) else {
            return NOOPMetricsHandler.instance
        }
        return series
    }

    package func makeFloatingPointCounter(label: String, dimensions: [(String, String)]) -> any FloatingPointCounterHandler {
        guard case .counter(let series) = find(label, dimensions, or: { .counter(CounterSeries()) }) else { return CounterSeries() }
        return series
    }

    package func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler {
        guard case .gauge(let series) = find(label, dimensions, or: { .gauge(GaugeSeries()) }) else { return NOOPMetricsHandler.instance }
        return series
    }

    package func makeRecorder(label: String, dimensions: [(String, String)], aggregate: Bool) -> any RecorderHandler {
        let made: () -> Series =
            aggregate ? { .histogram(HistogramSeries(bounds: Bounds.of(label))) } : { .gauge(GaugeSeries()) }
        return switch find(label, dimensions, or: made) {
        case .gauge(let series): series
        case .histogram(let series): series
        default: NOOPMetricsHandler.instance
        }
    }

    package func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
        guard case .histogram(let series) = find(label, dimensions, or: { .histogram(HistogramSeries(bounds: Bounds.seconds)) }) else {
            return NOOPMetricsHandler.instance
        }
        return series
    }

    // Prometheus expects counters to continue, so a series is kept after its metric object is destroyed.
    package func destroyCounter(_: any CounterHandler) {}
    package func destroyFloatingPointCounter(_: any FloatingPointCounterHandler) {}
    package func destroyMeter(_: any MeterHandler) {}
    package func destroyRecorder(_: any RecorderHandler) {}
    package func destroyTimer(_: any TimerHandler) {}

    /// Finds or creates a series; nil when the maximum is reached or the name belongs to another type.
    private func find(_ label: String, _ dimensions: [(String, String)], or make: () -> Series) -> Series? {
        let name = PrometheusText.name(label)
        let labels = PrometheusText.labels(dimensions.map { ($0.0, String($0.1.prefix(Self.maximumLabelLength))) })
        let found: Series? = state.withLock { state in
            let made = make()
            var family = state.families[name] ?? Family(type: made.type)
            guard family.type == made.type else { return nil }
            if let series = family.series[labels] { return series }
            guard state.count < maximum else { return nil }
            family.series[labels] = made
            state.families[name] = family
            state.count += 1
            return made
        }
        if found == nil { refused.increment(by: Int64(1)) }
        return found
    }
}

/// The upper bounds of histograms per unit.
enum Bounds {
    /// 100 µs to 10 s.
    static let seconds: [Double] = [
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
    ]
    /// 64 B to 64 MiB.
    static let bytes: [Double] = (3..<14).map { Double(1 << (2 * $0)) }
    static let numbers: [Double] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000]

    /// The bounds for the unit in the suffix of a metric's name.
    static func of(_ name: String) -> [Double] {
        name.hasSuffix("_seconds") ? seconds : name.hasSuffix("_bytes") ? bytes : numbers
    }
}

extension Telemetry {
    /// Installs the registry as the backend of swift-metrics. Call it once per process.
    package static func startMetrics() {
        MetricsSystem.bootstrap(MetricsRegistry.shared)
    }
}
