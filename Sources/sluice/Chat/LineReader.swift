import Glibc
import NIOPosix

/// Lines of standard input, read on a thread of their own.
///
/// Not with stdio: a thread that waits in it holds a lock that the end of the process wants.
enum LineReader {
    private static let maximumLine = 1 << 20

    /// - Parameter receive: a line without its end; nil: there is no more. Called on the reading thread.
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
            let count = chunk.withUnsafeMutableBytes { read(STDIN_FILENO, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
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
