import Foundation
import TestSupport
import Testing

/// Screenshots of browser tests.
enum Screenshots {
    private static let folder = NSTemporaryDirectory() + "/sluice-test-artifacts"

    /// Copies the test's `<name>.png` files to `sluice-test-artifacts/<page>-<name>.png` in the temporary folder.
    static func keep(_ names: [String], of page: String, from source: TemporaryFolder) throws {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        for name in names {
            let image = try #require(FileManager.default.contents(atPath: source.file("\(name).png")), "\(name).png is missing")
            try image.write(to: URL(fileURLWithPath: "\(folder)/\(page)-\(name).png"))
        }
    }
}
