import Glibc
import JSONCodec
import Logging
import Observability
import Support

/// Standard error: problems and progress.
package enum StandardError {
    package static func write(_ text: String) { Descriptor.write(Array(text.utf8), to: STDERR_FILENO) }
}

/// Standard output: a command's result.
package enum StandardOutput {
    /// - Returns: false when the reading end of the pipe is closed.
    @discardableResult
    package static func write(_ text: String) -> Bool { Descriptor.write(Array(text.utf8), to: STDOUT_FILENO) }

    /// Writes a value as one line of JSON.
    @discardableResult
    package static func writeLine(_ json: JSON) -> Bool { writeLine(escaping: json.text) }

    /// Writes a JSON text as one line.
    /// - Parameter json: one JSON text. Terminal control characters in it are escaped.
    @discardableResult
    package static func writeLine(escaping json: String) -> Bool { write(escaped(json) + "\n") }

    /// The same JSON with terminal control characters as `\u` escapes. Outside strings JSON contains no such characters but white space.
    package static func escaped(_ json: String) -> String {
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

/// Blocking writes to a file descriptor.
private enum Descriptor {
    /// Writes all bytes. A closed reading end stops the write and is not an error.
    /// - Returns: whether everything was written.
    @discardableResult
    static func write(_ bytes: [UInt8], to descriptor: Int32) -> Bool {
        var position = 0
        while position < bytes.count {
            let written = SystemCalls.write(bytes, from: position, to: descriptor)
            if written > 0 {
                position += written
            } else if errno == EAGAIN {
                // Another process may have made the terminal or pipe non-blocking.
                SystemCalls.waitUntilWritable(descriptor, milliseconds: 1_000)
            } else {
                return false
            }
        }
        return true
    }
}

/// A table of text columns, each as wide as its widest cell; the last column is not padded. Control characters are removed from cells,
/// since most values come from Redis.
package struct TextTable {
    private var rows: [[String]]

    package init(header: [String]) { rows = [header] }

    package mutating func add(_ cells: [String]) { rows.append(cells.map(Terminal.printable)) }

    package var isEmpty: Bool { rows.count <= 1 }

    /// The rows as lines, each ending with a newline.
    package var text: String {
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

extension Logger {
    /// A logger without output. Commands print their own messages.
    package static let silent = Logger(label: "silent") { _ in SwiftLogNoOpLogHandler() }
}
