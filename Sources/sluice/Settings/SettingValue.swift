/// Where a node listens.
struct ListenAddress: Sendable, Hashable, CustomStringConvertible {
    var host: String
    /// 0: any free one.
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

/// How settings' values are written. Pure: text in, value out, nil when it is not one.
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

    static func flag(_ text: String) -> Bool? {
        switch text.lowercased() {
        case "1", "true", "yes", "on": true
        case "0", "false", "no", "off": false
        default: nil
        }
    }

    /// Entries without the white space around them; empty ones are dropped.
    static func list(_ text: String) -> [String] {
        text.split(separator: ",").map { trimmed($0) }.filter { !$0.isEmpty }
    }

    static func trimmed(_ text: some StringProtocol) -> String {
        let start = text.firstIndex { !$0.isWhitespace } ?? text.endIndex
        guard let last = text.lastIndex(where: { !$0.isWhitespace }) else { return "" }
        return String(text[start...last])
    }

    /// Digits with at most one point: no sign, no exponent, no `inf`.
    private static func number(_ text: Substring) -> Double? {
        guard let first = text.utf8.first, first &- 0x30 < 10, let last = text.utf8.last, last &- 0x30 < 10,
            text.utf8.count <= 20, text.utf8.allSatisfy({ $0 &- 0x30 < 10 || $0 == UInt8(ascii: ".") })
        else { return nil }
        return Double(text)
    }

    /// The shortest way to write it.
    static func text(_ duration: Duration) -> String {
        let (seconds, attoseconds) = duration.components
        let microseconds = seconds * 1_000_000 + attoseconds / 1_000_000_000_000
        for (suffix, unit) in [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000)] as [(String, Int64)]
        where microseconds != 0 && microseconds % unit == 0 {
            return "\(microseconds / unit)\(suffix)"
        }
        return microseconds == 0 ? "0s" : "\(microseconds)us"
    }

    static func text(bytes: Int) -> String {
        for (suffix, unit) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] where bytes != 0 && bytes % unit == 0 {
            return "\(bytes / unit)\(suffix)"
        }
        return "\(bytes)"
    }

    /// A URL as it may be shown: without password, query and fragment, which may hold keys. Works on what is no URL, too.
    static func withoutSecrets(url: String) -> String {
        var text = url[...]
        if let tail = text.firstIndex(where: { $0 == "?" || $0 == "#" }) { text = text[..<tail] + "?redacted" }
        guard let scheme = text.firstRange(of: "://") else { return text.contains("@") ? "redacted" : String(text) }
        // A password may hold any character, "/" and "@" too: everything up to the last "@" is taken for credentials.
        guard let at = text.lastIndex(of: "@"), at >= scheme.upperBound else { return String(text) }
        let user = text[scheme.upperBound..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).first ?? ""
        return text[..<scheme.upperBound] + user + ":redacted" + text[at...]
    }
}
