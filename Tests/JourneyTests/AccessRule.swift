import Foundation
import TestSupport
import Testing

/// The access rule of the operating guide.
enum AccessRule {
    /// The command that creates its user, with the password `secret`.
    static func command() throws -> [String] {
        let guide = try String(
            contentsOf: Repository.root.appending(path: "Sources/sluice/sluice.docc/OperatingGuide.md"), encoding: .utf8)
        let line = try #require(guide.split(whereSeparator: \.isNewline).first { $0.hasPrefix("ACL SETUSER sluice ") })
        return line.split(separator: " ").map { $0 == ">PASSWORD" ? ">secret" : String($0) }
    }

    /// A server's URL with this user.
    static func url(_ url: String) -> String { url.replacingOccurrences(of: "://", with: "://sluice:secret@") }
}
