import Foundation
import Support

/// A folder in /tmp whose path is short enough for a Unix socket (108 bytes). Removed by `remove()`.
package struct TemporaryFolder: Sendable {
    package let path: String

    package init(_ name: String = "sluice") throws(SpawnError) {
        guard let path = SystemCalls.makeTemporaryDirectory("/tmp/\(name)-XXXXXX") else {
            throw SpawnError(description: "mkdtemp: \(SystemCalls.errorText())")
        }
        self.path = path
    }

    package func file(_ name: String) -> String { "\(path)/\(name)" }

    package func remove() {
        do { try FileManager.default.removeItem(atPath: path) } catch {
            FileHandle.standardError.write(Data("a temporary folder stays behind: \(error)\n".utf8))
        }
    }
}
