import Glibc

// Borrowed bytes. A `Span` cannot outlive the bytes that it refers to, and access to it is checked, so parsers and decoders pass spans
// around and call the few operations here that need pointers.

extension Span<UInt8> {
    /// The same bytes without a type, for functions that copy bytes of any kind.
    @inlinable
    package var raw: RawSpan {
        @_lifetime(copy self)
        get { unsafe bytes }
    }

    /// The offset of the first `byte` within `range`; nil if there is none. As fast as memchr(3).
    /// - Precondition: `range` lies within the span.
    @inlinable
    package func firstOffset(of byte: UInt8, in range: Range<Int>) -> Int? {
        guard !range.isEmpty else { return nil }
        return unsafe extracting(range).withUnsafeBufferPointer { bytes in
            guard let base = bytes.baseAddress, let found = unsafe memchr(base, Int32(byte), bytes.count) else { return nil }
            return unsafe range.lowerBound + (UnsafeRawPointer(found) - UnsafeRawPointer(base))
        }
    }

    /// The offset of the first byte that satisfies the predicate; nil if there is none.
    @inlinable
    package func firstOffset(where predicate: (UInt8) -> Bool) -> Int? {
        for offset in indices where predicate(self[offset]) { return offset }
        return nil
    }

    /// Whether the bytes equal the literal's UTF-8.
    @inlinable
    package func equals(_ literal: StaticString) -> Bool { count == literal.utf8CodeUnitCount && starts(with: literal) }

    /// Whether both spans hold the same bytes.
    @inlinable
    package func equals(_ other: Span<UInt8>) -> Bool {
        guard count == other.count else { return false }
        return unsafe withUnsafeBufferPointer { left in
            unsafe other.withUnsafeBufferPointer { right in
                guard let start = left.baseAddress, let other = right.baseAddress else { return true }
                return unsafe memcmp(start, other, left.count) == 0
            }
        }
    }

    /// Whether the bytes start with the literal's UTF-8.
    @inlinable
    package func starts(with literal: StaticString) -> Bool {
        let length = literal.utf8CodeUnitCount
        guard count >= length else { return false }
        let expected = unsafe literal.utf8Start
        for offset in 0..<length where unsafe self[unchecked: offset] != expected[offset] { return false }
        return true
    }

    /// Whether the bytes, with ASCII letters in lower case, start with a literal.
    @inlinable
    package func starts(withLowercased literal: StaticString) -> Bool {
        let length = literal.utf8CodeUnitCount
        guard count >= length else { return false }
        let expected = unsafe literal.utf8Start
        for offset in 0..<length {
            let byte = unsafe self[unchecked: offset]
            let lowercased = byte &- 0x41 < 26 ? byte | 0x20 : byte
            guard unsafe lowercased == expected[offset] else { return false }
        }
        return true
    }
}

extension [UInt8] {
    /// A copy of borrowed bytes.
    package init(copying bytes: Span<UInt8>) {
        self = unsafe bytes.withUnsafeBufferPointer { unsafe Array($0) }
    }

    /// Appends a copy of borrowed bytes.
    package mutating func append(copying bytes: Span<UInt8>) {
        unsafe bytes.withUnsafeBufferPointer { unsafe append(contentsOf: $0) }
    }

    /// Appends the UTF-8 of a literal.
    package mutating func append(copying literal: StaticString) {
        unsafe append(contentsOf: UnsafeBufferPointer(start: literal.utf8Start, count: literal.utf8CodeUnitCount))
    }
}

extension String {
    /// A copy of UTF-8 text. Invalid bytes become U+FFFD.
    package init(decoding bytes: Span<UInt8>) {
        self = unsafe bytes.withUnsafeBufferPointer { unsafe String(decoding: $0, as: UTF8.self) }
    }

    /// A copy of UTF-8 text; nil if the bytes are not valid UTF-8. `String(validating:as:)` does the same, but takes ten times as long for
    /// short strings.
    package init?(validating bytes: Span<UInt8>) {
        self.init(decoding: bytes)
        // Invalid bytes were replaced.
        guard utf8Span.span.equals(bytes) else { return nil }
    }
}

extension Hasher {
    /// Adds borrowed bytes.
    package mutating func combine(copying bytes: Span<UInt8>) {
        unsafe bytes.withUnsafeBytes { unsafe combine(bytes: $0) }
    }
}

extension MutableRawSpan {
    /// Combines the bytes with a repeated key of four bytes by exclusive or, eight bytes at a time.
    /// - Parameter key: the first byte of the key is the lowest one.
    package mutating func combine(withRepeated key: UInt32) {
        let word = UInt64(key) << 32 | UInt64(key)
        unsafe withUnsafeMutableBytes { bytes in
            var offset = 0
            while offset + 8 <= bytes.count {
                let value = unsafe bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self) ^ UInt64(littleEndian: word)
                unsafe bytes.storeBytes(of: value, toByteOffset: offset, as: UInt64.self)
                offset += 8
            }
            while offset < bytes.count {
                unsafe bytes[offset] ^= UInt8(truncatingIfNeeded: key >> UInt32(8 * (offset & 3)))
                offset += 1
            }
        }
    }
}
