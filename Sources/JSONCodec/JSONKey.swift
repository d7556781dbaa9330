import Support

/// The name of a member, compared without creating a `String`.
///
/// Escapes in a name are decoded before the comparison.
package struct JSONKey: ~Escapable {
    private let bytes: Span<UInt8>
    private let unescaped: String?

    @_lifetime(copy bytes)
    init(_ bytes: Span<UInt8>, unescaped: String?) {
        self.bytes = bytes
        self.unescaped = unescaped
    }

    /// The name; nil when it is not valid UTF-8.
    package var string: String? { unescaped ?? String(validating: bytes) }

    /// The hash of the name.
    func hash() -> UInt32 {
        if let unescaped { NameIndex.hash(unescaped) } else { NameIndex.hash(bytes) }
    }

    package static func ~= (name: StaticString, key: JSONKey) -> Bool { key.equals(name) }

    private func equals(_ name: StaticString) -> Bool {
        if let unescaped { return unescaped == name.description }
        return bytes.equals(name)
    }
}
