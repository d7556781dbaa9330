import Glibc

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

    /// Text of others, without what would steer the terminal.
    static func printable(_ text: String) -> String { printable(text, keepingLines: false) }

    static func printable(_ text: String, keepingLines: Bool) -> String {
        guard text.unicodeScalars.contains(where: { $0.properties.generalCategory == .control }) else { return text }
        var out = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            if scalar.properties.generalCategory != .control || keepingLines && (scalar == "\n" || scalar == "\t") {
                out.append(scalar)
            } else if !(keepingLines && scalar == "\r") {
                out.append(keepingLines ? "\u{FFFD}" : " ")
            }
        }
        return String(out)
    }
}
