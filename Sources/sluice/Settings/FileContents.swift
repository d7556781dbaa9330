import CNIOLinux
import Glibc

/// Reads small files completely.
enum FileContents {
    /// Why a file cannot be read.
    struct Unreadable: Error, CustomStringConvertible {
        let description: String
    }

    /// Reads a file of any type but a directory.
    /// - Parameter limit: maximum size in bytes; a larger file is rejected.
    static func read(_ path: String, limit: Int) -> Result<[UInt8], Unreadable> {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return .failure(lastError()) }
        defer { close(descriptor) }
        var information = stat()
        guard fstat(descriptor, &information) == 0 else { return .failure(lastError()) }
        if information.st_mode & S_IFMT == S_IFDIR { return .failure(Unreadable(description: "it is a directory")) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16_384)
        while true {
            let count = chunk.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress, $0.count) }
            if count < 0 {
                if errno == EINTR { continue }
                return .failure(lastError())
            }
            if count == 0 { return .success(bytes) }
            guard bytes.count + count <= limit else { return .failure(Unreadable(description: "it is larger than \(limit) bytes")) }
            bytes += chunk[..<count]
        }
    }

    /// Reads a key of at most 64 KiB from a file, without surrounding white space and line breaks.
    static func readKey(_ path: String) -> Result<String, Unreadable> {
        read(path, limit: 65_536).flatMap { bytes in
            guard let text = String(validating: bytes, as: UTF8.self) else { return .failure(Unreadable(description: "it is not UTF-8")) }
            let key = SettingValue.trimmed(text)
            return key.isEmpty ? .failure(Unreadable(description: "it is empty")) : .success(key)
        }
    }

    /// The description of `errno`.
    private static func lastError() -> Unreadable { Unreadable(description: String(cString: strerror(errno))) }
}
