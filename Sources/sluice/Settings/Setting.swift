/// The definition of one `SLUICE_*` setting: name, type, default, readers and description.
struct Setting: Sendable {
    /// A kind of process that reads the setting. All nodes may share one file, so a setting of another kind of node is not a fault.
    enum Reader: String, Sendable, CaseIterable {
        case gateway, worker, simulator, chat
        /// The operator commands, which use Redis only.
        case operation
    }

    /// The type of a value and its permitted range.
    enum Kind: Sendable {
        case text
        /// One of these words.
        case choice([String])
        case integer(ClosedRange<Int>)
        case duration(ClosedRange<Duration>)
        /// A size in bytes.
        case size(ClosedRange<Int>)
        /// `1`, `true`, `yes`, `on` or `0`, `false`, `no`, `off`.
        case flag
        /// `host:port`.
        case address
        /// The path of a readable file.
        case file
        /// A URL with one of these schemes.
        case url([String])
        /// Values separated by commas.
        case list
    }

    let name: String
    let kind: Kind
    /// The default as text; nil: unset.
    let defaultText: String?
    /// Whether the value is redacted in `config check`, logs and errors.
    let isSecret: Bool
    let readers: Set<Reader>
    /// A one-sentence description for `config check --verbose`, with the unit where the kind does not imply it.
    let meaning: String

    init(
        _ name: String, _ kind: Kind, _ defaultText: String? = nil, _ readers: Set<Reader>, isSecret: Bool = false, _ meaning: String
    ) {
        self.name = name
        self.kind = kind
        self.defaultText = defaultText
        self.isSecret = isSecret
        self.readers = readers
        self.meaning = meaning
    }
}

extension Setting.Kind {
    /// A description of the valid values, for `config check` and for faults.
    var expectation: String {
        switch self {
        case .text: "text"
        case .choice(let words): words.count == 1 ? words[0] : words.dropLast().joined(separator: ", ") + " or " + words[words.count - 1]
        case .integer(let range): "a whole number from \(range.lowerBound) to \(range.upperBound)"
        case .duration(let range):
            "a duration such as 250ms, 10s, 5m, 1h or a number of seconds, from \(SettingValue.text(range.lowerBound)) to \(SettingValue.text(range.upperBound))"
        case .size(let range):
            "a size such as 64KiB, 1MiB or a number of bytes, from \(SettingValue.text(bytes: range.lowerBound)) to \(SettingValue.text(bytes: range.upperBound))"
        case .flag: "1, true, yes, on or 0, false, no, off"
        case .address: "an address to listen on such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080"
        case .file: "the path of a file"
        case .url(let schemes): "a URL that begins with " + schemes.map { $0 + "://" }.joined(separator: " or ")
        case .list: "a list separated by commas"
        }
    }
}
