import Support

/// Parses setting values by their definitions in `SettingTable`. Collects all faults instead of stopping at the first one.
struct SettingsReader {
    let source: SettingsSource
    private(set) var faults: [SettingFault]
    /// Settings with a reported fault, so that reading one twice reports it once.
    private var reported: Set<String> = []

    init(_ source: SettingsSource) {
        self.source = source
        faults = source.faults
    }

    /// Adds a fault unless the same one was added already.
    mutating func fault(_ name: String?, _ problem: String, _ remedy: String, origin: SettingOrigin? = nil) {
        let fault = SettingFault(name: name, origin: origin ?? name.flatMap { source.value($0)?.origin }, problem: problem, remedy: remedy)
        if !faults.contains(fault) { faults.append(fault) }
    }

    /// Adds the faults that were not added already.
    mutating func add(_ more: [SettingFault]) {
        for fault in more where !faults.contains(fault) { faults.append(fault) }
    }

    /// Throws `SettingFaults` if there are any faults.
    func finish() throws(SettingFaults) {
        guard faults.isEmpty else { throw SettingFaults(faults: faults) }
    }

    /// Parses every setting, regardless of its readers.
    mutating func checkAll() {
        for setting in SettingTable.all { _ = parsed(setting.name) }
    }

    // MARK: Values by kind. Nil when the setting is unset, or invalid; the latter adds a fault.

    mutating func text(_ name: String) -> String? { parsed(name) == nil ? nil : source.value(name)?.text }

    mutating func integer(_ name: String) -> Int? { if case .integer(let value) = parsed(name) { value } else { nil } }

    mutating func duration(_ name: String) -> Duration? { if case .duration(let value) = parsed(name) { value } else { nil } }

    mutating func flag(_ name: String) -> Bool { if case .flag(let value) = parsed(name) { value } else { false } }

    mutating func address(_ name: String) -> ListenAddress? { if case .address(let value) = parsed(name) { value } else { nil } }

    mutating func list(_ name: String) -> [String] { text(name).map(SettingValue.list) ?? [] }

    private enum Parsed {
        case text
        case integer(Int)
        case duration(Duration)
        case flag(Bool)
        case address(ListenAddress)
    }

    /// The parsed value; nil when unset or invalid. An invalid value adds a fault.
    private mutating func parsed(_ name: String) -> Parsed? {
        guard let setting = SettingTable.named(name) else {
            fault(name, "there is no such setting", "this is a bug in sluice")
            return nil
        }
        guard let value = source.value(name) else { return nil }
        if let parsed = Self.parse(value.text, as: setting.kind) { return parsed }
        if reported.insert(name).inserted {
            if case .file = setting.kind {
                fault(name, "the file \(value.text) cannot be read", "name a file that the process may read")
            } else {
                let shown = setting.isSecret ? "its value" : "\"\(String(SettingsSource.shown(value.text, of: setting).prefix(80)))\""
                fault(name, "\(shown) cannot be used", "write " + setting.kind.expectation)
            }
        }
        return nil
    }

    /// Nil when the text is not a valid value of this kind.
    private static func parse(_ text: String, as kind: Setting.Kind) -> Parsed? {
        switch kind {
        case .text, .list: .text
        case .choice(let words): words.contains(text) ? .text : nil
        case .integer(let range): Int(text).flatMap { range.contains($0) ? .integer($0) : nil }
        case .duration(let range): SettingValue.duration(text).flatMap { range.contains($0) ? .duration($0) : nil }
        case .size(let range): SettingValue.size(text).flatMap { range.contains($0) ? .integer($0) : nil }
        case .flag: SettingValue.flag(text).map { .flag($0) }
        case .address: ListenAddress(text).map { .address($0) }
        case .file: (try? FileContents.read(text, limit: 64 << 20)).map { _ in .text }
        case .url(let schemes):
            schemes.contains { text.hasPrefix($0 + "://") && text.utf8.count > $0.utf8.count + 3 } && !text.contains(where: \.isWhitespace)
                ? .text : nil
        }
    }
}
