import Glibc

/// The whole terminal for a while: the other screen, no cursor, keys as they are pressed. Whoever opens it closes it, on every way out.
struct TerminalScreen: ~Copyable {
    private static let enter = "\u{1B}[?1049h\u{1B}[?25l\u{1B}[?7l\u{1B}[2J"
    private static let leave = "\u{1B}[?7h\u{1B}[?25h\u{1B}[?1049l"

    private let before: termios
    private let hasColours: Bool

    /// - Throws: when standard input is no terminal.
    static func open(hasColours: Bool) throws(CommandFailure) -> TerminalScreen {
        var attributes = termios()
        guard tcgetattr(STDIN_FILENO, &attributes) == 0 else {
            throw CommandFailure(.failed, "sluice: the terminal cannot be read: \(String(cString: strerror(errno)))")
        }
        let before = attributes
        // Keys one by one, unseen; Ctrl-C is a key too, so that nothing ends the process with the terminal in this state.
        attributes.c_lflag &= ~tcflag_t(ICANON | ECHO | ISIG | IEXTEN)
        attributes.c_iflag &= ~tcflag_t(IXON | ICRNL)
        attributes.c_cc.16 = 0
        guard tcsetattr(STDIN_FILENO, TCSAFLUSH, &attributes) == 0 else {
            throw CommandFailure(.failed, "sluice: the terminal cannot be set: \(String(cString: strerror(errno)))")
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
        var attributes = before
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &attributes)
    }

    /// What the terminal says of itself; 80×24 when it does not know.
    static var size: TopFrame.Size {
        var window = winsize()
        guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &window) == 0, window.ws_col > 0, window.ws_row > 0 else { return TopFrame.Size() }
        return TopFrame.Size(columns: Int(window.ws_col), rows: Int(window.ws_row))
    }

    /// In one write, over what was there: nothing flickers.
    func draw(_ lines: [StyledLine]) {
        let columns = Self.size.columns
        // After its last cell was written the cursor still stands on it: clearing the rest of a full line would take that cell away.
        let text = lines.map { $0.rendered(hasColours: hasColours) + ($0.width < columns ? "\u{1B}[K" : "") }.joined(separator: "\r\n")
        StandardOutput.write("\u{1B}[H\(text)")
    }
}
