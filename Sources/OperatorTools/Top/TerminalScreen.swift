import Glibc
import Support

/// The terminal in full-screen mode: alternate screen, hidden cursor, unbuffered keys. `deinit` restores the terminal.
struct TerminalScreen: ~Copyable {
    /// Alternate screen, cursor off, line wrap off, clear (xterm control sequences).
    private static let enter = "\u{1B}[?1049h\u{1B}[?25l\u{1B}[?7l\u{1B}[2J"
    private static let leave = "\u{1B}[?7h\u{1B}[?25h\u{1B}[?1049l"

    /// The attributes to restore.
    private let before: termios
    private let hasColours: Bool

    /// Switches the terminal to full-screen mode.
    /// - Throws: `CommandFailure` when standard input is not a terminal.
    static func open(hasColours: Bool) throws(CommandFailure) -> TerminalScreen {
        guard let before = SystemCalls.terminalAttributes(of: STDIN_FILENO) else {
            throw CommandFailure(.failed, "sluice: cannot read the terminal's attributes: \(SystemCalls.errorText())")
        }
        var attributes = before
        // Unbuffered keys without echo. Ctrl-C is read as a key, so that SIGINT cannot end the process before the terminal is restored.
        attributes.c_lflag &= ~tcflag_t(ICANON | ECHO | ISIG | IEXTEN)
        attributes.c_iflag &= ~tcflag_t(IXON | ICRNL)
        attributes.c_cc.16 = 0
        guard SystemCalls.setTerminalAttributes(attributes, of: STDIN_FILENO) else {
            throw CommandFailure(.failed, "sluice: cannot set the terminal's attributes: \(SystemCalls.errorText())")
        }
        StandardOutput.write(enter)
        return TerminalScreen(before: before, hasColours: hasColours)
    }

    private init(before: termios, hasColours: Bool) {
        self.before = before
        self.hasColours = hasColours
    }

    deinit {
        StandardOutput.write(Self.leave)
        SystemCalls.setTerminalAttributes(before, of: STDIN_FILENO)
    }

    /// The terminal's current size; 80×24 when it is unknown.
    static var size: TopFrame.Size {
        guard let size = SystemCalls.terminalSize(of: STDOUT_FILENO) else { return TopFrame.Size() }
        return TopFrame.Size(columns: size.columns, rows: size.rows)
    }

    /// Draws a frame over the previous one in a single write, which avoids flicker.
    func draw(_ lines: [StyledLine]) {
        let columns = Self.size.columns
        // After a full line the cursor is still on the last cell, so clearing to the end of the line would erase that cell.
        let text = lines.map { $0.rendered(hasColours: hasColours) + ($0.width < columns ? "\u{1B}[K" : "") }.joined(separator: "\r\n")
        StandardOutput.write("\u{1B}[H\(text)")
    }
}
