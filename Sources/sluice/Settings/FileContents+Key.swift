import Support

extension FileContents {
    /// Reads a key of at most 64 KiB from a file, without surrounding white space and line breaks.
    /// - Throws: `Unreadable` as `readText` does, and for an empty file.
    static func readKey(_ path: String) throws(Unreadable) -> String {
        let key = SettingValue.trimmed(try readText(path, limit: 65_536))
        guard !key.isEmpty else { throw Unreadable(.notText, "it is empty") }
        return key
    }
}
