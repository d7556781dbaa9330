import Contract
import Glibc
import Logging
import Observability
import Support

extension SettingsReader {
    /// The node's name: the value of the setting, else `host-pid-random`.
    mutating func nodeName(_ name: String) -> String {
        guard let given = text(name) else { return Self.ownName }
        if given.utf8.count > NameLimit.node || given.unicodeScalars.contains(where: { $0.value == 0x20 || $0.steersTerminal }) {
            fault(name, "it is not a valid node name", "write at most \(NameLimit.node) bytes without spaces or control characters")
        }
        return given
    }

    /// `host-pid-random`, unique among the nodes of a deployment.
    private static var ownName: String {
        let usable = (SystemCalls.hostName ?? "").filter { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-" || $0 == ".") }
        return "\(usable.isEmpty ? "node" : usable.cut(toBytes: 64))-\(getpid())-\(String(UInt32.random(in: .min ... .max), radix: 36))"
    }

    /// The log level and format; `info` and `text` unless set.
    mutating func logging() -> (level: Logger.Level, format: LogFormat) {
        (
            text("SLUICE_LOG_LEVEL").flatMap(Logger.Level.init(rawValue:)) ?? .info,
            text("SLUICE_LOG_FORMAT").flatMap(LogFormat.init(rawValue:)) ?? .text
        )
    }
}
