/// Turns texts into values by the table and collects every fault on the way instead of stopping at the first.
struct SettingsReader {
    let source: SettingsSource
    private(set) var faults: [SettingFault]
    /// A setting that is read twice is faulted once.
    private var judged: Set<String> = []

    init(_ source: SettingsSource) {
        self.source = source
        faults = source.faults
    }

    mutating func fault(_ name: String?, _ problem: String, _ remedy: String, origin: SettingOrigin? = nil) {
        let fault = SettingFault(name: name, origin: origin ?? name.flatMap { source.value($0)?.origin }, problem: problem, remedy: remedy)
        if !faults.contains(fault) { faults.append(fault) }
    }

    mutating func add(_ more: [SettingFault]) {
        for fault in more where !faults.contains(fault) { faults.append(fault) }
    }

    /// Throws all faults that were collected, if there are any.
    func finish() throws(SettingFaults) {
        guard faults.isEmpty else { throw SettingFaults(faults: faults) }
    }

    /// Judges every setting by its kind, whoever reads it.
    mutating func checkAll() {
        for setting in SettingTable.all { _ = parsed(setting.name) }
    }

    // MARK: By kind. Nil when there is no value, or none that can be used (then there is a fault).

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

    private mutating func parsed(_ name: String) -> Parsed? {
        guard let setting = SettingTable.named(name) else {
            fault(name, "there is no such setting", "this is a mistake in sluice itself")
            return nil
        }
        guard let value = source.value(name) else { return nil }
        if let parsed = Self.parse(value.text, as: setting.kind) { return parsed }
        if judged.insert(name).inserted {
            if case .file = setting.kind {
                fault(name, "the file \(value.text) cannot be read", "name a file that the process may read")
            } else {
                let shown = setting.isSecret ? "its value" : "\"\(String(SettingsSource.shown(value.text, of: setting).prefix(80)))\""
                fault(name, "\(shown) cannot be used", "write " + setting.kind.expectation)
            }
        }
        return nil
    }

    private static func parse(_ text: String, as kind: Setting.Kind) -> Parsed? {
        switch kind {
        case .text, .list: .text
        case .choice(let words): words.contains(text) ? .text : nil
        case .integer(let range): Int(text).flatMap { range.contains($0) ? .integer($0) : nil }
        case .duration(let range): SettingValue.duration(text).flatMap { range.contains($0) ? .duration($0) : nil }
        case .size(let range): SettingValue.size(text).flatMap { range.contains($0) ? .integer($0) : nil }
        case .flag: SettingValue.flag(text).map { .flag($0) }
        case .address: ListenAddress(text).map { .address($0) }
        case .file: if case .success = FileContents.read(text, limit: 64 << 20) { .text } else { nil }
        case .url(let schemes):
            schemes.contains { text.hasPrefix($0 + "://") && text.utf8.count > $0.utf8.count + 3 } && !text.contains(where: \.isWhitespace)
                ? .text : nil
        }
    }
}
