import Support

/// The response of `/metrics`: all metrics of the process in the Prometheus text format 0.0.4.
package func prometheusText() -> String {
    PrometheusText.render(MetricsRegistry.shared, process: ProcessMetrics.read())
}

/// Renders metrics in the Prometheus text format (prometheus.io/docs/instrumenting/exposition_formats).
enum PrometheusText {
    static func render(_ registry: MetricsRegistry, process: ProcessMetrics?) -> String {
        var out = ""
        for (name, family) in registry.families.sorted(by: { $0.key < $1.key }) {
            begin(name, type: family.type, to: &out)
            for (labels, series) in family.series.sorted(by: { $0.key < $1.key }) {
                switch series {
                case .counter(let counter): append(name, labels, counter.value, to: &out)
                case .gauge(let gauge): append(name, labels, gauge.value, to: &out)
                case .histogram(let histogram): append(name, labels, histogram, to: &out)
                }
            }
        }
        append("sluice_metrics_series_refused_total", type: "counter", registry.refused.value, to: &out)
        begin("sluice_build_info", type: "gauge", to: &out)
        let build = [("version", BuildInformation.version), ("configuration", BuildInformation.configuration)]
        append("sluice_build_info", labels(build), 1, to: &out)
        if let process {
            append("process_resident_memory_bytes", type: "gauge", Double(process.residentBytes), to: &out)
            append("process_virtual_memory_bytes", type: "gauge", Double(process.virtualBytes), to: &out)
            append("process_cpu_seconds_total", type: "counter", process.cpuSeconds, to: &out)
            append("process_open_fds", type: "gauge", Double(process.openDescriptors), to: &out)
            append("process_max_fds", type: "gauge", Double(process.maximumDescriptors), to: &out)
            append("process_threads", type: "gauge", Double(process.threads), to: &out)
            append("process_start_time_seconds", type: "gauge", process.startTime, to: &out)
        }
        return out
    }

    /// A valid metric or label name, `[a-zA-Z_:][a-zA-Z0-9_:]*`; other characters become `_`.
    static func name(_ label: String) -> String {
        var bytes = Array(label.utf8)
        for index in bytes.indices {
            let byte = bytes[index]
            let letter = (byte | 0x20) &- UInt8(ascii: "a") < 26 || byte == UInt8(ascii: "_") || byte == UInt8(ascii: ":")
            let digit = byte &- UInt8(ascii: "0") < 10
            if !(letter || digit && index > 0) { bytes[index] = UInt8(ascii: "_") }
        }
        return bytes.isEmpty ? "_" : String(decoding: bytes, as: UTF8.self)
    }

    /// Renders labels as `name="value",…`, sorted by name, without braces.
    static func labels(_ dimensions: [(String, String)]) -> String {
        dimensions.sorted { $0.0 < $1.0 }.map { "\(name($0.0))=\"\(escaped($0.1))\"" }.joined(separator: ",")
    }

    private static func escaped(_ value: String) -> String {
        var out = ""
        for character in value.unicodeScalars {
            switch character {
            case "\\": out += "\\\\"
            case "\"": out += "\\\""
            case "\n": out += "\\n"
            default: out.unicodeScalars.append(character)
            }
        }
        return out
    }

    /// Renders a value; whole numbers have no fraction.
    static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        if let whole = Int64(exactly: value) { return String(whole) }
        return value.description
    }

    /// Begins a metric with its HELP and TYPE lines.
    private static func begin(_ name: String, type: String, to out: inout String) {
        if let help = MetricHelp.texts[name] { out += "# HELP \(name) \(help)\n" }
        out += "# TYPE \(name) \(type)\n"
    }

    private static func append(_ name: String, type: String, _ value: Double, to out: inout String) {
        begin(name, type: type, to: &out)
        out += "\(name) \(number(value))\n"
    }

    private static func append(_ name: String, _ labels: String, _ value: Double, to out: inout String) {
        out += labels.isEmpty ? "\(name) \(number(value))\n" : "\(name){\(labels)} \(number(value))\n"
    }

    private static func append(_ name: String, _ labels: String, _ histogram: HistogramSeries, to out: inout String) {
        let (cumulative, sum) = histogram.snapshot
        let prefix = labels.isEmpty ? "" : labels + ","
        for (index, count) in cumulative.enumerated() {
            let bound = index < histogram.bounds.count ? number(histogram.bounds[index]) : "+Inf"
            out += "\(name)_bucket{\(prefix)le=\"\(bound)\"} \(count)\n"
        }
        append(name + "_sum", labels, sum, to: &out)
        append(name + "_count", labels, Double(cumulative.last ?? 0), to: &out)
    }
}
