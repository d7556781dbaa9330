import Glibc

/// Reads complete small files, up to a size limit.
package enum FileContents {
    /// The reason why a file could not be read. Does not contain the path.
    package struct Unreadable: Error, CustomStringConvertible {
        package enum Code: Sendable {
            /// The system reported an error, or the file is a directory.
            case system
            case tooLarge
            case notText
        }

        package let code: Code
        package let description: String

        package init(_ code: Code, _ description: String) {
            self.code = code
            self.description = description
        }
    }

    /// The bytes of the file.
    /// - Parameter limit: maximum size in bytes.
    /// - Throws: `Unreadable` when the file is missing, is a directory, cannot be read or exceeds the limit.
    package static func read(_ path: String, limit: Int) throws(Unreadable) -> [UInt8] {
        let descriptor = SystemCalls.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw lastError() }
        defer { close(descriptor) }
        guard let information = SystemCalls.status(of: descriptor) else { throw lastError() }
        if information.st_mode & S_IFMT == S_IFDIR { throw Unreadable(.system, "it is a directory") }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16_384)
        while true {
            let count = SystemCalls.read(descriptor, into: &chunk)
            if count < 0 { throw lastError() }
            if count == 0 { return bytes }
            guard bytes.count + count <= limit else { throw Unreadable(.tooLarge, "it is larger than \(limit) bytes") }
            bytes += chunk[..<count]
        }
    }

    /// The text of the file.
    /// - Throws: `Unreadable` as `read` does, and for text that is not UTF-8.
    package static func readText(_ path: String, limit: Int) throws(Unreadable) -> String {
        let bytes = try read(path, limit: limit)
        guard let text = String(validating: bytes, as: UTF8.self) else { throw Unreadable(.notText, "it is not UTF-8") }
        return text
    }

    private static func lastError() -> Unreadable { Unreadable(.system, SystemCalls.errorText()) }
}
