import Logging

/// The format of log lines, `SLUICE_LOG_FORMAT`.
package enum LogFormat: String, Sendable, CaseIterable {
    /// `2026-11-22T14:00:00.123Z info  message key=value …`
    case text
    /// One JSON object per line: `time`, `level`, `message`, then one member per metadata entry.
    case json
}

/// One log event, rendered as one line. Line breaks and terminal control characters in message and metadata are escaped, so the only line
/// break is the last byte.
struct LogLine {
    /// Maximum length of a message, name or value in bytes; longer ones are cut and end with an ellipsis.
    static let maximumValueLength = 1_024

    let time: Timestamp
    let level: Logger.Level
    let message: String
    let metadata: Logger.Metadata

    /// The line with its line break, as UTF-8.
    func render(_ format: LogFormat) -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(200)
        switch format {
        case .text: appendText(to: &out)
        case .json: appendJSON(to: &out)
        }
        out.append(UInt8(ascii: "\n"))
        return out
    }

    private var sorted: [(key: String, value: Logger.MetadataValue)] { metadata.sorted { $0.key < $1.key } }

    /// Cuts a text to `maximumValueLength`, not inside a scalar.
    private static func cut(_ text: String) -> String {
        guard text.utf8.count > maximumValueLength else { return text }
        var end = text.utf8.index(text.utf8.startIndex, offsetBy: maximumValueLength)
        while text.utf8[end] & 0xC0 == 0x80 { end = text.utf8.index(before: end) }
        return text[..<end] + "…"
    }

    // MARK: Text

    private func appendText(to out: inout [UInt8]) {
        time.append(to: &out)
        out.append(UInt8(ascii: " "))
        let level = self.level.rawValue
        out.append(contentsOf: level.utf8)
        for _ in level.utf8.count..<max(5, level.utf8.count) { out.append(UInt8(ascii: " ")) }
        out.append(UInt8(ascii: " "))
        out.appendEscaped(Self.cut(message), quote: nil)
        for (key, value) in sorted {
            out.append(UInt8(ascii: " "))
            out.appendEscaped(Self.cut(key), quote: nil)
            out.append(UInt8(ascii: "="))
            let text = Self.cut(value.description)
            if text.needsQuotes {
                out.append(UInt8(ascii: "\""))
                out.appendEscaped(text, quote: UInt8(ascii: "\""))
                out.append(UInt8(ascii: "\""))
            } else {
                out.append(contentsOf: text.utf8)
            }
        }
    }

    // MARK: JSON

    private func appendJSON(to out: inout [UInt8]) {
        out.append(contentsOf: #"{"time":""#.utf8)
        time.append(to: &out)
        out.append(contentsOf: #"","level":""#.utf8)
        out.append(contentsOf: level.rawValue.utf8)
        out.append(contentsOf: #"","message":"#.utf8)
        out.appendQuoted(Self.cut(message))
        for (key, value) in sorted {
            out.append(UInt8(ascii: ","))
            // Metadata named like one of the three members above must not replace it.
            out.appendQuoted(key == "time" || key == "level" || key == "message" ? key + "_" : Self.cut(key))
            out.append(UInt8(ascii: ":"))
            Self.appendJSON(value, to: &out)
        }
        out.append(UInt8(ascii: "}"))
    }

    private static func appendJSON(_ value: Logger.MetadataValue, to out: inout [UInt8]) {
        switch value {
        case .string(let text): out.appendQuoted(cut(text))
        case .stringConvertible(let convertible): out.appendQuoted(cut(convertible.description))
        case .array(let values):
            out.append(UInt8(ascii: "["))
            for (index, value) in values.enumerated() {
                if index > 0 { out.append(UInt8(ascii: ",")) }
                appendJSON(value, to: &out)
            }
            out.append(UInt8(ascii: "]"))
        case .dictionary(let values):
            out.append(UInt8(ascii: "{"))
            for (index, (key, value)) in values.sorted(by: { $0.key < $1.key }).enumerated() {
                if index > 0 { out.append(UInt8(ascii: ",")) }
                out.appendQuoted(key)
                out.append(UInt8(ascii: ":"))
                appendJSON(value, to: &out)
            }
            out.append(UInt8(ascii: "}"))
        }
    }
}

extension String {
    /// Whether the text must be quoted as a value of the text format.
    fileprivate var needsQuotes: Bool {
        isEmpty || unicodeScalars.contains { $0.value <= 0x20 || $0 == "\"" || $0 == "=" || $0 == "\\" || $0.steersTerminal }
    }
}

extension Unicode.Scalar {
    /// Whether the scalar may break a line, control a terminal or change the order of displayed text: control characters (C0, DEL, C1),
    /// Unicode line separators, and bidirectional marks, embeddings, overrides and isolates (Unicode Standard Annex 9). All are below
    /// U+10000.
    package var steersTerminal: Bool {
        switch value {
        case 0..<0x20, 0x7F...0x9F, 0x61C, 0x200E, 0x200F, 0x2028...0x202E, 0x2066...0x206F: true
        default: false
        }
    }
}

extension [UInt8] {
    fileprivate mutating func appendQuoted(_ text: String) {
        append(UInt8(ascii: "\""))
        appendEscaped(text, quote: UInt8(ascii: "\""))
        append(UInt8(ascii: "\""))
    }

    /// Appends the text with JSON escapes for unprintable scalars and, if `quote` is not nil, for backslashes and quotes.
    fileprivate mutating func appendEscaped(_ text: String, quote: UInt8?) {
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\n": append(contentsOf: "\\n".utf8)
            case "\r": append(contentsOf: "\\r".utf8)
            case "\t": append(contentsOf: "\\t".utf8)
            case "\\" where quote != nil: append(contentsOf: "\\\\".utf8)
            case "\"" where quote != nil: append(contentsOf: "\\\"".utf8)
            case _ where scalar.steersTerminal:
                let digits = String(scalar.value, radix: 16)
                append(contentsOf: "\\u".utf8)
                append(contentsOf: repeatElement(UInt8(ascii: "0"), count: 4 - digits.utf8.count))
                append(contentsOf: digits.utf8)
            default: append(contentsOf: scalar.utf8)
            }
        }
    }
}

extension Unicode.Scalar {
    fileprivate var utf8: UTF8.EncodedScalar {
        // Every scalar has a UTF-8 encoding; `encode` returns an optional only for encodings that do not cover all of Unicode.
        UTF8.encode(self) ?? UTF8.encodedReplacementCharacter
    }
}
