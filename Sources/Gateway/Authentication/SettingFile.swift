#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Reads text files that settings name.
enum SettingFile {
    /// Maximum size of a file, in bytes.
    static let maximumSize = 16 << 20

    /// Reads a whole file.
    /// - Throws: `unreadableFile`, with the setting and the path, when the file cannot be read, is too large or is not UTF-8.
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

    /// The lines that are neither empty nor comments, with their numbers from 1.
    static func lines(_ text: String) -> [(number: Int, text: Substring)] {
        text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated()
            .map { (number: $0.offset + 1, text: $0.element.trimmed) }
            .filter { !$0.text.isEmpty && !$0.text.hasPrefix("#") }
    }
}

extension StringProtocol where SubSequence == Substring {
    /// The text without leading and trailing white space.
    var trimmed: Substring {
        guard let first = firstIndex(where: { !$0.isWhitespace }), let last = lastIndex(where: { !$0.isWhitespace }) else {
            return self[startIndex..<startIndex]
        }
        return self[first...last]
    }
}
