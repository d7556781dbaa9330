extension String {
    /// The longest prefix with at most `maximum` bytes of UTF-8 that does not end inside a scalar.
    package func cut(toBytes maximum: Int) -> String {
        guard utf8.count > maximum else { return self }
        var end = utf8.index(utf8.startIndex, offsetBy: Swift.max(0, maximum))
        while utf8[end] & 0xC0 == 0x80 { end = utf8.index(before: end) }
        return String(self[..<end])
    }
}
