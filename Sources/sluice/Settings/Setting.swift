/// One `SLUICE_*` setting: everything that is known of it before it has a value.
struct Setting: Sendable {
    /// Who reads it. A deployment may give all nodes one file: a setting of another node is no fault.
    enum Reader: String, Sendable, CaseIterable {
        case gateway, worker, simulator, chat
        /// The commands that operate a deployment through Redis.
        case operation
    }

    enum Kind: Sendable {
        case text
        /// One of these words.
        case choice([String])
        case integer(ClosedRange<Int>)
        case duration(ClosedRange<Duration>)
        /// Bytes.
        case size(ClosedRange<Int>)
        /// `1`, `true`, `yes`, `on` or `0`, `false`, `no`, `off`.
        case flag
        /// `host:port`.
        case address
        /// The path of a file that can be read.
        case file
        /// A URL with one of these schemes.
        case url([String])
        /// Separated by commas.
        case list
    }

    let name: String
    let kind: Kind
    /// As one would write it; nil: unset.
    let standard: String?
    /// Its value appears nowhere: not in `config check`, a log or an error.
    let isSecret: Bool
    let readers: Set<Reader>
    /// One sentence for people, with the unit where the kind does not say it.
    let meaning: String

    init(
        _ name: String, _ kind: Kind, _ standard: String? = nil, _ readers: Set<Reader>, isSecret: Bool = false, _ meaning: String
    ) {
        self.name = name
        self.kind = kind
        self.standard = standard
        self.isSecret = isSecret
        self.readers = readers
        self.meaning = meaning
    }
}

extension Setting.Kind {
    /// What may be written, for the table and for faults.
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
