/// A problem with a setting: what is wrong, where, and how to fix it, on one line.
struct SettingFault: Error, Sendable, Hashable, CustomStringConvertible {
    /// The setting's name; nil when the problem concerns a file.
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

/// All faults of a configuration, so that they can be fixed in one pass.
struct SettingFaults: Error, Sendable, CustomStringConvertible {
    let faults: [SettingFault]

    var description: String { faults.map(\.description).joined(separator: "\n") }
}
