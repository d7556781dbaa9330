import Foundation
import Support
import Synchronization

/// A pseudo-terminal (pty(7)) for testing interactive programs.
package final class PseudoTerminal: Sendable {
    /// The path of the device that the program opens.
    package let path: String
    /// TIOCSPTLCK and TIOCGPTN (ioctl_tty(2)), in place of `unlockpt` and `ptsname`, which the `Glibc` module does not export.
    private static let lock: UInt = 0x4004_5431
    private static let number: UInt = 0x8004_5430

    private let master: Int32
    private let written = Mutex([UInt8]())

    package init(columns: Int = 80, rows: Int = 24) throws {
        master = SystemCalls.open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)
        var (isLocked, number) = (Int32(0), UInt32(0))
        guard master >= 0, unsafe ioctl(master, Self.lock, &isLocked) == 0, unsafe ioctl(master, Self.number, &number) == 0 else {
            throw SpawnError(description: "no pseudo terminal: \(SystemCalls.errorText())")
        }
        path = "/dev/pts/\(number)"
        resize(columns: columns, rows: rows)
        let thread = Thread { [self] in
            var chunk = [UInt8](repeating: 0, count: 1 << 16)
            while true {
                let count = SystemCalls.read(master, into: &chunk)
                // EIO: no process has the device open at present; a program that is about to start may open it.
                if count < 0, errno == EIO {
                    usleep(2_000)
                    continue
                }
                guard count > 0 else { return }
                written.withLock { $0 += chunk[..<count] }
            }
        }
        thread.stackSize = 256 << 10
        thread.start()
    }

    /// Sets the size of the terminal. The caller must send SIGWINCH to the program.
    package func resize(columns: Int, rows: Int) {
        var size = winsize()
        size.ws_col = UInt16(columns)
        size.ws_row = UInt16(rows)
        _ = unsafe ioctl(master, UInt(TIOCSWINSZ), &size)
    }

    package func type(_ text: String) {
        _ = SystemCalls.write(Array(text.utf8), to: master)
    }

    /// All output so far.
    package var output: String { written.withLock { String(decoding: $0, as: UTF8.self) } }

    /// The lines since the cursor last moved to the home position, without control sequences.
    package var screen: [String] {
        guard let home = output.range(of: "\u{1B}[H", options: .backwards) else { return [] }
        let text = output[home.upperBound...].replacing(/\u{1B}\[[0-9;?]*[A-Za-z]/, with: "")
        // The terminal adds a carriage return before each line feed, even if there is one already.
        let lines = text.utf8.filter { $0 != UInt8(ascii: "\r") }.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        return lines.map { String(decoding: $0, as: UTF8.self) }
    }

    /// Whether the terminal is in its initial mode, with echo and line buffering.
    package var isAsShellsWantIt: Bool {
        guard let attributes = SystemCalls.terminalAttributes(of: master) else { return false }
        return attributes.c_lflag & tcflag_t(ICANON) != 0 && attributes.c_lflag & tcflag_t(ECHO) != 0
            && attributes.c_lflag & tcflag_t(ISIG) != 0
    }
}
