import Glibc

/// The values that were given, with where each comes from: the environment over a `--config` file over the defaults. Not yet judged.
struct SettingsSource: Sendable {
    struct Value: Sendable, Hashable {
        let text: String
        let origin: SettingOrigin
    }

    /// What was given, by name; defaults are not in it.
    private(set) var given: [String: Value] = [:]
    /// Names that begin with SLUICE_ or stand in the file, and that are no settings.
    private(set) var unknown: [(name: String, origin: SettingOrigin)] = []
    /// Of the file as a whole.
    private(set) var faults: [SettingFault] = []
    /// The whole environment, where an upstream's `key_env` is looked up.
    let environment: [String: String]

    /// - Parameter file: the path of a file of `NAME=value` lines.
    init(environment: [String: String] = SettingsSource.processEnvironment, file path: String? = nil) {
        self.environment = environment
        if let path {
            let file = SettingsFile(path: path)
            faults += file.faults
            for line in file.lines { take(line.name, line.value, .file(path, line: line.number)) }
        }
        for (name, value) in environment.sorted(by: { $0.key < $1.key }) where name.hasPrefix("SLUICE_") {
            take(name, value, .environment)
        }
    }

    /// An empty value counts as not given: compose files and shells set variables that way.
    private mutating func take(_ name: String, _ text: String, _ origin: SettingOrigin) {
        guard SettingTable.named(name) != nil else { return unknown.append((name, origin)) }
        let text = SettingValue.trimmed(text)
        if !text.isEmpty { given[name] = Value(text: text, origin: origin) }
    }

    /// Sets what a command decides itself; it goes before everything else.
    mutating func override(_ name: String, _ text: String) {
        given[name] = Value(text: text, origin: .commandLine)
    }

    /// Forgets what was given; the default counts again.
    mutating func remove(_ name: String) { given[name] = nil }

    /// Gives a value only where none was given.
    mutating func propose(_ name: String, _ text: String) {
        if given[name] == nil { override(name, text) }
    }

    /// What counts: as given, else the default; nil when there is neither.
    func value(_ name: String) -> Value? {
        given[name] ?? SettingTable.named(name)?.standard.map { Value(text: $0, origin: .standard) }
    }

    static var processEnvironment: [String: String] {
        var result: [String: String] = [:]
        var entry = environ
        while let text = entry.pointee {
            let pair = String(cString: text).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if pair.count == 2 { result[String(pair[0])] = String(pair[1]) }
            entry += 1
        }
        return result
    }
}

extension SettingsSource {
    /// The unknown names as faults, each with the nearest name that there is.
    var unknownFaults: [SettingFault] {
        unknown.map { name, origin in
            let near = SettingTable.nearest(to: name).map { "did you mean \($0)?" } ?? "remove it (sluice config check lists all settings)"
            return SettingFault(name: name, origin: origin, problem: "there is no such setting", remedy: near)
        }
    }

    /// How a value may be shown.
    static func shown(_ text: String, of setting: Setting) -> String {
        if setting.isSecret { return "redacted" }
        if case .url = setting.kind { return SettingValue.withoutSecrets(url: text) }
        return text
    }
}
