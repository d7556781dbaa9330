import Contract
import Support

/// Parser for a stream of JSON objects and lists, independent of how the bytes are split: one in each line, several in a line, or one over
/// many lines. Only brackets and strings are read; the values may be invalid otherwise. A value that is complete within a chunk is not copied.
struct JSONValueParser {
    /// Maximum number of bytes of one value.
    static let sizeLimit = EventStreamParser.lineLimit

    /// What the bytes belong to.
    private enum State {
        /// White space before a value.
        case between
        /// Text that is neither an object nor a list: it ends with its line.
        case line
        /// - Parameter depth: open brackets.
        case value(depth: Int)
        case string(depth: Int)
        /// After a backslash in a string.
        case escape(depth: Int)
    }

    private var state = State.between
    /// The start of a value that continues in the next chunk.
    private var carry: [UInt8] = []

    /// - Parameter body: called for each value, and for each line of other text.
    /// - Throws: errors of `body`, and `upstream_protocol` for a value over the limit.
    mutating func feed(_ chunk: Span<UInt8>, _ body: (Span<UInt8>) throws(Failure) -> Void) throws(Failure) {
        /// The offset in the chunk of the current value; 0 when it began in an earlier one.
        var start = 0
        for position in chunk.indices {
            let isOver: Bool
            if case .between = state { start = position }
            (state, isOver) = Self.next(state, chunk[position])
            guard isOver else { continue }
            state = .between
            let value = chunk.extracting(start..<position + 1)
            start = position + 1
            if carry.isEmpty, value.count <= Self.sizeLimit {
                try body(value)
            } else {
                try take(value)
                try deliver(body)
            }
        }
        if case .between = state { return }
        try take(chunk.extracting(start..<chunk.count))
    }

    /// Delivers what is left at the end of the stream.
    mutating func finish(_ body: (Span<UInt8>) throws(Failure) -> Void) throws(Failure) {
        if !carry.isEmpty { try deliver(body) }
    }

    /// The state after a byte, and whether the byte ends the current value.
    private static func next(_ state: State, _ byte: UInt8) -> (State, isOver: Bool) {
        switch (state, byte) {
        case (.between, 0...0x20): return (.between, false)
        case (.between, UInt8(ascii: "{")), (.between, UInt8(ascii: "[")): return (.value(depth: 1), false)
        case (.between, _): return (.line, false)
        case (.line, 0x0A): return (.line, true)
        case (.line, _): return (.line, false)
        case (.value(let depth), UInt8(ascii: "\"")): return (.string(depth: depth), false)
        case (.value(let depth), UInt8(ascii: "{")), (.value(let depth), UInt8(ascii: "[")): return (.value(depth: depth + 1), false)
        case (.value(let depth), UInt8(ascii: "}")), (.value(let depth), UInt8(ascii: "]")):
            return (.value(depth: depth - 1), depth == 1)
        case (.string(let depth), UInt8(ascii: "\\")): return (.escape(depth: depth), false)
        case (.string(let depth), UInt8(ascii: "\"")): return (.value(depth: depth), false)
        case (.escape(let depth), _): return (.string(depth: depth), false)
        case (.value, _), (.string, _): return (state, false)
        }
    }

    private mutating func take(_ bytes: Span<UInt8>) throws(Failure) {
        guard carry.count + bytes.count <= Self.sizeLimit else {
            throw Failure(.upstreamProtocol, "a JSON document of the upstream's stream is longer than \(Self.sizeLimit) bytes")
        }
        carry.append(copying: bytes)
    }

    private mutating func deliver(_ body: (Span<UInt8>) throws(Failure) -> Void) throws(Failure) {
        defer { if carry.capacity > 16 * 1024 { carry = [] } else { carry.removeAll(keepingCapacity: true) } }
        try body(carry.span)
    }
}
