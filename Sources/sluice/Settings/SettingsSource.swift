import Support

/// The source of a value.
enum SettingOrigin: Sendable, Hashable, CustomStringConvertible {
    case `default`
    case environment
    case file(String, line: Int)
    /// Set by the command itself, such as by `sluice dev`.
    case commandLine

    var description: String {
        switch self {
        case .default: "default"
        case .environment: "environment"
        case .file(let path, let line): line > 0 ? "\(path):\(line)" : path
        case .commandLine: "command line"
        }
    }
}

/// The unparsed values of settings with their origins. The environment takes precedence over the `--config` file, both over the defaults.
struct SettingsSource: Sendable {
    /// A value as text, with its origin.
    struct Value: Sendable, Hashable {
        let text: String
        let origin: SettingOrigin
    }

    /// Values that were set, by name; without defaults.
    private(set) var values: [String: Value] = [:]
    /// Unknown names in the file, and unknown names with the prefix `SLUICE_` in the environment.
    private(set) var unknown: [(name: String, origin: SettingOrigin)] = []
    /// Faults of the `--config` file.
    private(set) var faults: [SettingFault] = []
    /// The whole environment; an upstream's `key_env` refers to it.
    let environment: [String: String]

    /// Reads the file and the environment.
    /// - Parameter file: the path of a file of `NAME=value` lines.
    init(environment: [String: String] = SettingsSource.processEnvironment, file path: String? = nil) {
        self.environment = environment
        if let path {
            let file = SettingsFile(path: path)
            faults += file.faults
            for line in file.lines { record(line.name, line.value, .file(path, line: line.number)) }
        }
        for (name, value) in environment.sorted(by: { $0.key < $1.key }) where name.hasPrefix("SLUICE_") {
            record(name, value, .environment)
        }
    }

    /// Records a value. An empty value counts as unset, because compose files and shells set variables that way.
    private mutating func record(_ name: String, _ text: String, _ origin: SettingOrigin) {
        guard SettingTable.named(name) != nil else { return unknown.append((name, origin)) }
        let text = SettingValue.trimmed(text)
        if !text.isEmpty { values[name] = Value(text: text, origin: origin) }
    }

    /// Sets a value that takes precedence over the environment and the file.
    mutating func override(_ name: String, _ text: String) {
        values[name] = Value(text: text, origin: .commandLine)
    }

    /// Removes a value, so that the default applies.
    mutating func remove(_ name: String) { values[name] = nil }

    /// Sets a value unless one was set.
    mutating func setIfUnset(_ name: String, _ text: String) {
        if values[name] == nil { override(name, text) }
    }

    /// The value that was set, else the default; nil when there is neither.
    func value(_ name: String) -> Value? {
        values[name] ?? SettingTable.named(name)?.defaultText.map { Value(text: $0, origin: .default) }
    }

    /// The environment of this process.
    static var processEnvironment: [String: String] { SystemCalls.environment }
}

extension SettingsSource {
    /// The unknown names as faults, each with the most similar known name.
    var unknownFaults: [SettingFault] {
        unknown.map { name, origin in
            let near = SettingTable.nearest(to: name).map { "did you mean \($0)?" } ?? "remove it (sluice config check lists all settings)"
            return SettingFault(name: name, origin: origin, problem: "there is no such setting", remedy: near)
        }
    }

    /// The value as displayed: secrets are redacted, and passwords are removed from URLs.
    static func shown(_ text: String, of setting: Setting) -> String {
        if setting.isSecret { return "redacted" }
        if case .url = setting.kind { return SettingValue.withoutSecrets(url: text) }
        return text
    }
}
