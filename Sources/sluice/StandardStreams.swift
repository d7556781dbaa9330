import Contract
import Glibc
import JSONCodec
import Observability

/// What a command has to say besides its result: problems and progress.
enum StandardError {
    static func write(_ text: String) { Descriptor.write(Array(text.utf8), to: STDERR_FILENO) }
}

/// What a command was asked for.
enum StandardOutput {
    /// - Returns: false when nobody reads any more.
    @discardableResult
    static func write(_ text: String) -> Bool { Descriptor.write(Array(text.utf8), to: STDOUT_FILENO) }

    @discardableResult
    static func writeLine(_ json: JSON) -> Bool { writeLine(escaping: json.text) }

    /// - Parameter json: one JSON text. What would steer a terminal is escaped.
    @discardableResult
    static func writeLine(escaping json: String) -> Bool { write(escaped(json) + "\n") }

    /// The same JSON with an escape for each character that would steer a terminal: outside its strings JSON has none but white space.
    static func escaped(_ json: String) -> String {
        guard json.unicodeScalars.contains(where: \.steersTerminal) else { return json }
        var out = String.UnicodeScalarView()
        for scalar in json.unicodeScalars {
            guard scalar.steersTerminal else {
                out.append(scalar)
                continue
            }
            let digits = String(scalar.value, radix: 16)
            out.append(contentsOf: ("\\u" + String(repeating: "0", count: 4 - digits.count) + digits).unicodeScalars)
        }
        return String(out)
    }
}

private enum Descriptor {
    /// A reader that went away ends the writing and is no error of ours.
    /// - Returns: whether all was written.
    @discardableResult
    static func write(_ bytes: [UInt8], to descriptor: Int32) -> Bool {
        bytes.withUnsafeBytes { bytes in
            var rest = bytes[...]
            while !rest.isEmpty {
                let written = Glibc.write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
                if written > 0 {
                    rest = rest.dropFirst(written)
                } else if errno == EAGAIN {
                    // A terminal or pipe that another process made non-blocking.
                    var ready = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                    poll(&ready, 1, 1_000)
                } else if errno != EINTR {
                    return false
                }
            }
            return true
        }
    }
}

/// Columns of text, each as wide as its widest cell; the last one is not padded. Cells are made printable: most come from outside.
struct TextTable {
    private var rows: [[String]]

    init(header: [String]) { rows = [header] }

    mutating func add(_ cells: [String]) { rows.append(cells.map(Terminal.printable)) }

    var isEmpty: Bool { rows.count <= 1 }

    var text: String {
        var widths: [Int] = []
        for row in rows {
            for (column, cell) in row.enumerated() {
                if column == widths.count { widths.append(0) }
                widths[column] = max(widths[column], cell.count)
            }
        }
        return rows.map { row in
            row.enumerated().map { column, cell in
                column == row.count - 1 ? cell : cell + String(repeating: " ", count: widths[column] - cell.count + 2)
            }.joined() + "\n"
        }.joined()
    }
}
