import Support

/// The parser of a `--config` file of `NAME=value` lines.
///
/// `#` begins a comment at the start of a line or after white space. A value may be quoted: in `'…'` everything is literal; in `"…"` the
/// escapes are `\"`, `\\` and `\n`. `export NAME=value` is accepted, so that a shell can source the same file.
struct SettingsFile: Sendable {
    /// Bytes.
    static let maximumSize = 1 << 20

    /// One assignment.
    struct Line: Sendable, Hashable {
        let name: String
        let value: String
        let number: Int
    }

    private(set) var lines: [Line] = []
    private(set) var faults: [SettingFault] = []
    private let path: String

    /// Parses the text of a file.
    /// - Parameter path: used in faults only.
    init(parsing text: String, path: String) {
        self.path = path
        var first: [String: Int] = [:]
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            guard let parsed = parse(SettingValue.trimmed(line), number: index + 1) else { continue }
            if let earlier = first[parsed.name] {
                fault(index + 1, "\(parsed.name) is set a second time", "the first assignment is in line \(earlier): remove one of them")
            } else {
                first[parsed.name] = index + 1
                lines.append(parsed)
            }
        }
    }

    /// Reads and parses a file. An unreadable file becomes a fault.
    init(path: String) {
        do {
            self.init(parsing: try FileContents.readText(path, limit: Self.maximumSize), path: path)
        } catch {
            self.init(parsing: "", path: path)
            if error.code == .notText {
                fault(0, "the file is not UTF-8", "save it as UTF-8")
            } else {
                fault(0, "cannot be read: \(error)", "name a readable file with --config")
            }
        }
    }

    private mutating func fault(_ line: Int, _ problem: String, _ remedy: String) {
        faults.append(SettingFault(name: nil, origin: .file(path, line: line), problem: problem, remedy: remedy))
    }

    /// Parses one trimmed line; nil for blank lines, comments and faulty lines.
    private mutating func parse(_ line: String, number: Int) -> Line? {
        guard !line.isEmpty, !line.hasPrefix("#") else { return nil }
        let assignment = line.hasPrefix("export ") ? SettingValue.trimmed(line.dropFirst(7)) : line
        guard let equals = assignment.firstIndex(of: "=") else {
            // The line may be a secret without its name, so the fault does not quote it.
            fault(number, "the line has no \"=\"", "write NAME=value")
            return nil
        }
        let name = SettingValue.trimmed(assignment[..<equals])
        guard let initial = name.utf8.first, !(initial &- 0x30 < 10),
            name.utf8.allSatisfy({ ($0 | 0x20) &- 0x61 < 26 || $0 &- 0x30 < 10 || $0 == UInt8(ascii: "_") })
        else {
            fault(number, "the text before \"=\" is not a setting name", "write NAME=value with a name of letters, digits and _")
            return nil
        }
        switch Self.value(SettingValue.trimmed(assignment[assignment.index(after: equals)...])) {
        case .success(let value): return Line(name: name, value: value, number: number)
        case .failure(let error):
            fault(number, "\(name): \(error.problem)", error.remedy)
            return nil
        }
    }

    private struct ValueError: Error {
        let problem: String
        let remedy: String
    }

    /// The value after `=`, unquoted and without a trailing comment.
    private static func value(_ text: String) -> Result<String, ValueError> {
        guard let quote = text.first, quote == "\"" || quote == "'" else {
            // A comment must follow white space, because a password may contain "#".
            var end = text.startIndex
            var previous: Character = " "
            while end < text.endIndex, !(text[end] == "#" && previous.isWhitespace) {
                previous = text[end]
                end = text.index(after: end)
            }
            return .success(SettingValue.trimmed(text[..<end]))
        }
        var value = ""
        var rest = text.dropFirst()
        while let character = rest.popFirst() {
            if character == quote {
                let tail = SettingValue.trimmed(rest)
                guard tail.isEmpty || tail.hasPrefix("#") else {
                    return .failure(ValueError(problem: "text follows the closing quote", remedy: "put the whole value in quotes"))
                }
                return .success(value)
            }
            if character == "\\", quote == "\"", let escaped = rest.popFirst() {
                value.append(escaped == "n" ? "\n" : escaped)
            } else {
                value.append(character)
            }
        }
        return .failure(ValueError(problem: "the quote is not closed", remedy: "close it on the same line"))
    }
}
