import Glibc
import Observability
import Support

/// The properties of the terminal at standard input and output, and text for it.
package struct Terminal: Sendable {
    /// Whether standard input and standard output are terminals.
    package let isInteractive: Bool
    /// Whether standard output shows colours (`NO_COLOR` turns them off).
    package let hasColours: Bool
    /// Whether the terminal supports no control sequences (`TERM` is unset or `dumb`).
    package let isDumb: Bool

    package init() {
        isInteractive = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1
        isDumb = SystemCalls.environmentValue("TERM").map { $0 == "dumb" } ?? true
        hasColours = isatty(STDOUT_FILENO) == 1 && SystemCalls.environmentValue("NO_COLOR") == nil && !isDumb
    }

    func dim(_ text: String) -> String { hasColours ? "\u{1B}[2m\(text)\u{1B}[0m" : text }
    func bold(_ text: String) -> String { hasColours ? "\u{1B}[1m\(text)\u{1B}[0m" : text }

    /// Untrusted text as one line, without control characters and marks of text direction.
    package static func printable(_ text: String) -> String { printable(text, keepingLines: false) }

    /// Untrusted text without control characters and marks of text direction.
    /// - Parameter keepingLines: keep newlines and tabs, and replace other control characters by U+FFFD instead of a space.
    package static func printable(_ text: String, keepingLines: Bool) -> String {
        guard text.unicodeScalars.contains(where: \.steersTerminal) else { return text }
        var out = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            if !scalar.steersTerminal || keepingLines && (scalar == "\n" || scalar == "\t") {
                out.append(scalar)
            } else if scalar.value > 0x9F {
                // Marks of text direction have no width and are removed.
                if scalar == "\u{2028}" || scalar == "\u{2029}" { out.append(keepingLines ? "\n" : " ") }
            } else if !(keepingLines && scalar == "\r") {
                out.append(keepingLines ? "\u{FFFD}" : " ")
            }
        }
        return String(out)
    }
}
