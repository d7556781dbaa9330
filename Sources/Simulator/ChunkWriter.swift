import NIOCore
import Support

/// A buffer of bytes for one socket, framed as HTTP chunks (RFC 9112, section 7.1) for HTTP/1.1 clients.
struct ChunkWriter {
    var buffer = ByteBuffer()
    private var isChunked = true
    private var start = 0

    /// Starts a new write. The storage is reused unless an earlier write still holds it.
    mutating func reset(chunked: Bool) {
        buffer.clear()
        isChunked = chunked
    }

    /// Starts a chunk. Its size, always eight hexadecimal digits, is filled in by `end`.
    mutating func begin() {
        guard isChunked else { return }
        start = buffer.writerIndex
        buffer.writeStaticString("00000000\r\n")
    }

    /// Ends the chunk that `begin` started and fills in its size.
    mutating func end() {
        guard isChunked else { return }
        let count = buffer.writerIndex - start - 10
        var size: UInt64 = 0
        for shift in stride(from: 28, through: 0, by: -4) {
            let digit = UInt64(count >> shift & 15)
            size = size << 8 | (digit < 10 ? 0x30 + digit : 0x57 + digit)
        }
        buffer.setInteger(size, at: start)
        buffer.writeStaticString("\r\n")
    }

    /// Writes the last chunk, which ends the body.
    mutating func finish() {
        if isChunked { buffer.writeStaticString("0\r\n\r\n") }
    }

    mutating func write(_ bytes: [UInt8]) { buffer.writeBytes(bytes) }
    mutating func write(_ text: StaticString) { buffer.writeStaticString(text) }

    /// Writes a number of 0 or more in decimal.
    mutating func write(decimal value: Int) {
        guard value >= 10 else { return _ = buffer.writeInteger(UInt8(truncatingIfNeeded: 0x30 + value)) }
        var digits = InlineArray<20, UInt8>(repeating: 0)
        var rest = value
        var start = digits.count
        while rest > 0 {
            start -= 1
            digits[start] = UInt8(truncatingIfNeeded: 0x30 + rest % 10)
            rest /= 10
        }
        buffer.writeBytes(digits.span.extracting(start..<digits.count).raw)
    }
}
