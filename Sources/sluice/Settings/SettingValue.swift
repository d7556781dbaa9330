import Support

/// A host and port to listen on.
struct ListenAddress: Sendable, Hashable, CustomStringConvertible {
    var host: String
    /// 0: any free port.
    var port: Int

    /// `host:port` or `[IPv6]:port`; nil for anything else.
    init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else { return nil }
        var host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = host.dropFirst().dropLast()
            guard host.contains(":") else { return nil }
        } else if host.contains(":") {
            return nil
        }
        guard !host.isEmpty, host.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7F && $0 != UInt8(ascii: "/") }) else { return nil }
        self.host = String(host)
        self.port = Int(port)
    }

    init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// Parsing and formatting of setting values. Parsers return nil for invalid text.
enum SettingValue {
    private static let durationUnits: [(suffix: String, nanoseconds: Double)] = [
        ("ms", 1e6), ("us", 1e3), ("s", 1e9), ("m", 60e9), ("h", 3_600e9), ("d", 86_400e9), ("", 1e9),
    ]
    private static let sizeUnits: [(suffix: String, bytes: Double)] = [
        ("KiB", 1_024), ("MiB", 1_048_576), ("GiB", 1_073_741_824), ("kB", 1e3), ("KB", 1e3), ("MB", 1e6), ("GB", 1e9), ("B", 1), ("", 1),
    ]

    /// `250ms`, `10s`, `5m`, `1h`, `1.5s`, or a plain number of seconds.
    static func duration(_ text: String) -> Duration? {
        for (suffix, nanoseconds) in durationUnits where text.hasSuffix(suffix) {
            guard let number = number(text.dropLast(suffix.count)) else { continue }
            let product = (number * nanoseconds).rounded()
            return product <= 9e18 ? .nanoseconds(Int64(product)) : nil
        }
        return nil
    }

    /// `64KiB`, `1MiB`, `2GiB`, `64kB`, `1MB`, or a plain number of bytes.
    static func size(_ text: String) -> Int? {
        for (suffix, bytes) in sizeUnits where text.hasSuffix(suffix) {
            guard let number = number(text.dropLast(suffix.count)) else { continue }
            let product = (number * bytes).rounded()
            return product <= 9e18 ? Int(product) : nil
        }
        return nil
    }

    /// `1`, `true`, `yes`, `on` or `0`, `false`, `no`, `off`, in any case.
    static func flag(_ text: String) -> Bool? {
        switch text.lowercased() {
        case "1", "true", "yes", "on": true
        case "0", "false", "no", "off": false
        default: nil
        }
    }

    /// Entries separated by commas, without surrounding white space; empty entries are dropped.
    static func list(_ text: String) -> [String] {
        text.split(separator: ",").map { trimmed($0) }.filter { !$0.isEmpty }
    }

    /// The text without leading and trailing white space.
    static func trimmed(_ text: some StringProtocol) -> String {
        let start = text.firstIndex { !$0.isWhitespace } ?? text.endIndex
        guard let last = text.lastIndex(where: { !$0.isWhitespace }) else { return "" }
        return String(text[start...last])
    }

    /// A decimal number of digits with at most one point: no sign, exponent or `inf`.
    private static func number(_ text: Substring) -> Double? {
        guard let first = text.utf8.first, first &- 0x30 < 10, let last = text.utf8.last, last &- 0x30 < 10,
            text.utf8.count <= 20, text.utf8.allSatisfy({ $0 &- 0x30 < 10 || $0 == UInt8(ascii: ".") })
        else { return nil }
        return Double(text)
    }

    /// The duration in the largest unit that divides it, such as `90s` or `5m`; microseconds are the smallest unit.
    static func text(_ duration: Duration) -> String {
        let microseconds = duration.wholeMicroseconds
        for (suffix, unit) in [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000)] as [(String, Int)]
        where microseconds != 0 && microseconds % unit == 0 {
            return "\(microseconds / unit)\(suffix)"
        }
        return microseconds == 0 ? "0s" : "\(microseconds)us"
    }

    /// The size in the largest binary unit that divides it.
    static func text(bytes: Int) -> String {
        for (suffix, unit) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] where bytes != 0 && bytes % unit == 0 {
            return "\(bytes / unit)\(suffix)"
        }
        return "\(bytes)"
    }

    /// The URL without password, query and fragment, which may hold secrets. Also safe for text that is not a valid URL.
    static func withoutSecrets(url: String) -> String {
        var text = url[...]
        if let tail = text.firstIndex(where: { $0 == "?" || $0 == "#" }) { text = text[..<tail] + "?redacted" }
        guard let scheme = text.firstRange(of: "://") else { return text.contains("@") ? "redacted" : String(text) }
        // A password may contain any character, including "/" and "@": everything up to the last "@" is treated as credentials.
        guard let at = text.lastIndex(of: "@"), at >= scheme.upperBound else { return String(text) }
        let user = text[scheme.upperBound..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).first ?? ""
        return text[..<scheme.upperBound] + user + ":redacted" + text[at...]
    }
}
