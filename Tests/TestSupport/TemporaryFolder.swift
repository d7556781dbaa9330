import Foundation

/// A folder in /tmp whose path is short enough for a Unix socket (108 bytes). Removed by `remove()`.
package struct TemporaryFolder: Sendable {
    package let path: String

    package init(_ name: String = "sluice") throws(SpawnError) {
        var template = Array("/tmp/\(name)-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw SpawnError(description: "mkdtemp: \(String(cString: strerror(errno)))") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    package func file(_ name: String) -> String { "\(path)/\(name)" }

    package func remove() {
        do { try FileManager.default.removeItem(atPath: path) } catch {
            FileHandle.standardError.write(Data("a temporary folder stays behind: \(error)\n".utf8))
        }
    }
}
