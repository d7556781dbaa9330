#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// A file that a setting names, read whole at start.
enum SettingFile {
    static let maximumSize = 16 << 20

    /// - Throws: `unreadableFile` that names the setting and the path.
    static func read(_ path: String, setting: String) throws(AuthenticationError) -> String {
        let data: Data
        do { data = try Data(contentsOf: URL(filePath: path)) } catch {
            throw AuthenticationError(.unreadableFile, "\(setting): \(path) cannot be read")
        }
        guard data.count <= maximumSize else {
            throw AuthenticationError(.unreadableFile, "\(setting): \(path) is larger than \(maximumSize >> 20) MiB")
        }
        guard let text = String(validating: data, as: UTF8.self) else {
            throw AuthenticationError(.unreadableFile, "\(setting): \(path) is not UTF-8")
        }
        return text
    }

    /// Lines that say something, with their numbers from 1.
    static func lines(_ text: String) -> [(number: Int, text: Substring)] {
        text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated()
            .map { (number: $0.offset + 1, text: $0.element.trimmed) }
            .filter { !$0.text.isEmpty && !$0.text.hasPrefix("#") }
    }
}

extension StringProtocol where SubSequence == Substring {
    /// Without white space at either end.
    var trimmed: Substring {
        guard let first = firstIndex(where: { !$0.isWhitespace }), let last = lastIndex(where: { !$0.isWhitespace }) else {
            return self[startIndex..<startIndex]
        }
        return self[first...last]
    }
}
