import Contract
import Support

/// Parser for lines that end with LF, independent of how the bytes are split. Lines that are complete within a chunk are not copied.
struct LineParser {
    /// Maximum number of bytes of one line.
    static let lineLimit = EventStreamParser.lineLimit
    /// The start of a line that continues in the next chunk.
    private var carry: [UInt8] = []

    /// - Parameter body: Called for each line without its end.
    /// - Throws: Errors of `body`, and `upstream_protocol` for a line over the limit.
    mutating func feed(
        _ chunk: Span<UInt8>, _ body: (Span<UInt8>) throws(Failure) -> Void
    ) throws(Failure) {
        var position = 0
        while position < chunk.count {
            let found = chunk.firstOffset(of: 0x0A, in: position..<chunk.count)
            let end = found ?? chunk.count
            guard carry.count + end - position <= Self.lineLimit else {
                throw Failure(.upstreamProtocol, "a line of the upstream's stream is longer than \(Self.lineLimit) bytes")
            }
            if found != nil, carry.isEmpty {
                try body(chunk.extracting(position..<end))
            } else {
                carry.append(copying: chunk.extracting(position..<end))
                if found != nil { try carriedLine(body) }
            }
            position = end + 1
        }
    }

    /// Delivers a last line without LF at the end of the stream.
    mutating func finish(_ body: (Span<UInt8>) throws(Failure) -> Void) throws(Failure) {
        if !carry.isEmpty { try carriedLine(body) }
    }

    private mutating func carriedLine(_ body: (Span<UInt8>) throws(Failure) -> Void) throws(Failure) {
        defer { if carry.capacity > 16 * 1024 { carry = [] } else { carry.removeAll(keepingCapacity: true) } }
        try body(carry.span)
    }
}
