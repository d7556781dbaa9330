/// Why a setting cannot be used: what, where, and how to mend it, on one line.
struct SettingFault: Error, Sendable, Hashable, CustomStringConvertible {
    /// The setting, or nil when it is about a file as a whole.
    var name: String?
    var origin: SettingOrigin?
    var problem: String
    var remedy: String

    var description: String {
        let subject = [name, origin.map { name == nil ? "\($0)" : "(\($0))" }].compactMap { $0 }.joined(separator: " ")
        let line = (subject.isEmpty ? "" : subject + ": ") + problem + (remedy.isEmpty ? "" : "; " + remedy)
        return String(line.unicodeScalars.map { $0.properties.generalCategory == .control ? " " : Character($0) })
    }
}

/// All faults of a configuration together: whoever mends it wants to see them at once.
struct SettingFaults: Error, Sendable, CustomStringConvertible {
    let faults: [SettingFault]

    var description: String { faults.map(\.description).joined(separator: "\n") }
}

/// Where a value comes from.
enum SettingOrigin: Sendable, Hashable, CustomStringConvertible {
    case standard
    case environment
    case file(String, line: Int)
    /// Set by a command for itself, such as `--listen`.
    case commandLine

    var description: String {
        switch self {
        case .standard: "default"
        case .environment: "environment"
        case .file(let path, let line): line > 0 ? "\(path):\(line)" : path
        case .commandLine: "command line"
        }
    }
}
