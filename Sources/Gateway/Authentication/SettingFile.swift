import Support

/// Reads text files that settings name.
enum SettingFile {
    /// Maximum size of a file, in bytes.
    static let maximumSize = 16 << 20

    /// Reads a whole file.
    /// - Throws: `unreadableFile`, with the setting and the path, when the file cannot be read, is too large or is not UTF-8.
    static func read(_ path: String, setting: String) throws(AuthenticationError) -> String {
        do { return try FileContents.readText(path, limit: maximumSize) } catch {
            let problem =
                switch error.code {
                case .system: "cannot be read"
                case .tooLarge: "is larger than \(maximumSize >> 20) MiB"
                case .notText: "is not UTF-8"
                }
            throw AuthenticationError(.unreadableFile, "\(setting): \(path) \(problem)")
        }
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
