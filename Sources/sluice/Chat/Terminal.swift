import Glibc
import Observability

/// What a terminal is told and what it tells.
struct Terminal: Sendable {
    /// Both ends are a person's: there are a prompt and colours.
    let isInteractive: Bool
    let hasColours: Bool
    /// Nothing but lines of text can be shown.
    let isDumb: Bool

    init() {
        isInteractive = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1
        isDumb = getenv("TERM").map { String(cString: $0) == "dumb" } ?? true
        hasColours = isatty(STDOUT_FILENO) == 1 && getenv("NO_COLOR") == nil && !isDumb
    }

    func dim(_ text: String) -> String { hasColours ? "\u{1B}[2m\(text)\u{1B}[0m" : text }
    func bold(_ text: String) -> String { hasColours ? "\u{1B}[1m\(text)\u{1B}[0m" : text }

    /// Text from outside as one line, without what would steer the terminal or show it in another order.
    static func printable(_ text: String) -> String { printable(text, keepingLines: false) }

    /// - Parameter keepingLines: newlines and tabs stay; other control characters become U+FFFD instead of a space.
    static func printable(_ text: String, keepingLines: Bool) -> String {
        guard text.unicodeScalars.contains(where: \.steersTerminal) else { return text }
        var out = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            if !scalar.steersTerminal || keepingLines && (scalar == "\n" || scalar == "\t") {
                out.append(scalar)
            } else if scalar.value > 0x9F {
                // Marks of direction have no width: they are left out.
                if scalar == "\u{2028}" || scalar == "\u{2029}" { out.append(keepingLines ? "\n" : " ") }
            } else if !(keepingLines && scalar == "\r") {
                out.append(keepingLines ? "\u{FFFD}" : " ")
            }
        }
        return String(out)
    }
}
