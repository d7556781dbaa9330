import Glibc
import Support

/// Kernel statistics of this process (proc(5)).
package struct ProcessMetrics: Sendable {
    package var residentBytes = 0
    package var virtualBytes = 0
    /// Sum of user and system time.
    package var cpuSeconds = 0.0
    package var openDescriptors = 0
    package var maximumDescriptors: UInt64 = 0
    package var threads = 0
    /// Seconds since 1970.
    package var startTime = 0.0

    /// Reads the statistics; nil without /proc.
    package static func read() -> ProcessMetrics? {
        // Field 2 is the command's name in parentheses and may contain any character, so field 3 starts after the last parenthesis.
        guard let stat = contents("/proc/self/stat"), let end = stat.lastIndex(of: ")") else { return nil }
        let fields = stat[stat.index(after: end)...].split(separator: " ")
        func field(_ number: Int) -> Double { number - 3 < fields.count ? Double(fields[number - 3]) ?? 0 : 0 }
        let ticks = Double(sysconf(Int32(_SC_CLK_TCK)))
        var metrics = ProcessMetrics()
        metrics.cpuSeconds = (field(14) + field(15)) / ticks
        metrics.threads = Int(field(20))
        metrics.startTime = bootTime + field(22) / ticks
        metrics.virtualBytes = Int(field(23))
        metrics.residentBytes = Int(field(24)) * sysconf(Int32(_SC_PAGESIZE))
        metrics.openDescriptors = openDescriptorCount()
        if let limit = SystemCalls.descriptorLimit { metrics.maximumDescriptors = UInt64(limit.rlim_cur) }
        return metrics
    }

    /// Boot time of the machine in seconds since 1970; 0 if unknown.
    private static let bootTime: Double = {
        for line in contents("/proc/stat")?.split(separator: "\n") ?? [] where line.hasPrefix("btime ") {
            return Double(line.dropFirst(6)) ?? 0
        }
        return 0
    }()

    private static func openDescriptorCount() -> Int {
        // Not counted: the descriptor of this directory.
        max(0, (SystemCalls.entryCount(of: "/proc/self/fd") ?? 0) - 1)
    }

    /// The text of a file of at most 1 MiB; nil when it cannot be read.
    private static func contents(_ path: String) -> String? {
        (try? FileContents.read(path, limit: 1 << 20)).map { String(decoding: $0, as: UTF8.self) }
    }
}
