import Glibc
import Support

/// The CPU time and memory of a local process (proc(5)).
struct ProcessReading: Sendable {
    let name: String
    let pid: Int
    /// User and system time, µs; the resolution is the kernel's tick, usually 10 ms.
    var cpu: Double = 0
    var residentBytes = 0

    /// Reads the current values; nil when there is no such process on this machine.
    static func read(_ name: String, pid: Int) -> ProcessReading? {
        // The second field may contain any characters. Parsing starts after its closing parenthesis, at field 3.
        guard let bytes = try? FileContents.read("/proc/\(pid)/stat", limit: 1 << 16) else { return nil }
        let text = String(decoding: bytes, as: UTF8.self)
        guard let end = text.lastIndex(of: ")") else { return nil }
        let fields = text[text.index(after: end)...].split(separator: " ")
        guard fields.count > 21, let user = Double(fields[11]), let system = Double(fields[12]), let pages = Int(fields[21]) else {
            return nil
        }
        var reading = ProcessReading(name: name, pid: pid)
        reading.cpu = (user + system) / Double(sysconf(Int32(_SC_CLK_TCK))) * 1_000_000
        reading.residentBytes = pages * sysconf(Int32(_SC_PAGESIZE))
        return reading
    }

    /// The command name of a process; nil when there is no such process.
    static func command(of pid: Int) -> String? {
        guard let bytes = try? FileContents.read("/proc/\(pid)/comm", limit: 1 << 12) else { return nil }
        return String(decoding: bytes, as: UTF8.self)
    }
}
