import Glibc
import NIOPosix
import Support

/// Reads the lines of standard input on a thread of its own.
///
/// Uses read(2) instead of stdio, since a thread that blocks in stdio holds a lock that exit(3) needs.
enum LineReader {
    /// Bytes; the rest of a longer line is dropped.
    private static let maximumLine = 1 << 20

    /// Starts reading.
    /// - Parameter receive: called on the reading thread with each line without its line break; nil: end of input.
    static func start(_ receive: @escaping @Sendable (String?) -> Void) {
        NIOThreadPool.singleton.submit { state in
            guard case .active = state else { return }
            readAll(receive)
        }
    }

    private static func readAll(_ receive: (String?) -> Void) {
        var line: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4_096)
        while true {
            let count = SystemCalls.read(STDIN_FILENO, into: &chunk)
            guard count > 0 else { break }
            for byte in chunk[..<count] {
                if byte == UInt8(ascii: "\n") {
                    receive(text(line))
                    line.removeAll(keepingCapacity: true)
                } else if line.count < maximumLine {
                    line.append(byte)
                }
            }
        }
        if !line.isEmpty { receive(text(line)) }
        receive(nil)
    }

    private static func text(_ line: [UInt8]) -> String {
        String(decoding: line.last == UInt8(ascii: "\r") ? line.dropLast() : line[...], as: UTF8.self)
    }
}
