import Contract
import Support

/// A server-sent event. Its bytes belong to the parser.
struct ServerSentEvent: ~Escapable {
    /// The `event` field; empty if missing.
    let name: Span<UInt8>
    /// The `data` lines joined with LF; empty if missing.
    let data: Span<UInt8>
    /// The last comment before the event, without its colon. DashScope sends the status there.
    let comment: Span<UInt8>
}

/// Parser for server-sent events, independent of how the bytes are split (WHATWG HTML, section 9.2.6 "Interpreting an event stream").
///
/// Lines end with CR, LF or CRLF; a byte order mark at the start is skipped. Lines that are complete within a chunk are not copied, nor is
/// the data of an event with one such line.
///
/// Unlike the standard, `finish` delivers an event that lacks its final blank line: some providers omit it, and HTTP shows whether the
/// stream ended properly. `id` and `retry` are ignored because upstream streams are never resumed by event id.
struct EventStreamParser {
    /// Maximum number of bytes of one line.
    static let lineLimit = 1 << 20
    /// Maximum number of bytes of all data lines of one event.
    static let eventLimit = 4 << 20
    private static let keptCommentBytes = 128
    private static let keptNameBytes = 128

    /// Where the data of the current event is. `none` becomes `borrowed` or `owned`; `borrowed` becomes `owned` with a second line or at
    /// the end of the chunk.
    private enum Data {
        case none
        /// One line inside the chunk that is being parsed.
        case borrowed(Range<Int>)
        /// Copied to `data`.
        case owned
    }

    /// The start of a line that continues in the next chunk.
    private var carry: [UInt8] = []
    private var data: [UInt8] = []
    private var name: [UInt8] = []
    private var comment: [UInt8] = []
    private var state = Data.none
    private var isFirstLine = true
    /// Whether the last chunk ended with a CR: a following LF belongs to the same line end.
    private var skipsLineFeed = false
    /// Number of lines with an unknown field name. A stream of only these is not an event stream.
    private var foreignLines = 0
    private var eventCount = 0

    /// Checks at the end of an incomplete stream that the response was an event stream.
    /// - Throws: `upstream_protocol` when it had only lines with unknown field names.
    func requireEvents() throws(Failure) {
        guard eventCount == 0, foreignLines > 0 else { return }
        throw Failure(.upstreamProtocol, "the upstream's response is not an event stream")
    }

    /// Parses a chunk of the stream.
    /// - Parameter body: Called for each event with data or a name.
    /// - Throws: Errors of `body`, and `upstream_protocol` for a line or event over its limit. The parser must not be used afterwards.
    mutating func feed(
        _ chunk: Span<UInt8>, _ body: (ServerSentEvent) throws(Failure) -> Void
    ) throws(Failure) {
        var position = 0
        let count = chunk.count
        if skipsLineFeed, count > 0 {
            skipsLineFeed = false
            if chunk[0] == 0x0A { position = 1 }
        }
        var nextLineFeed = -1
        while position < count {
            if nextLineFeed < position { nextLineFeed = chunk.firstOffset(of: 0x0A, in: position..<count) ?? count }
            let end = chunk.firstOffset(of: 0x0D, in: position..<nextLineFeed) ?? nextLineFeed
            guard end < count else { break }
            let range = position..<end
            position = end + 1
            if chunk[end] == 0x0D {
                if position < count {
                    if chunk[position] == 0x0A { position += 1 }
                } else {
                    skipsLineFeed = true
                }
            }
            if carry.isEmpty {
                guard range.count <= Self.lineLimit else { throw Self.lineTooLong }
                try line(chunk, range, isChunk: true, body)
            } else {
                guard carry.count + range.count <= Self.lineLimit else { throw Self.lineTooLong }
                carry.append(copying: chunk.extracting(range))
                try carriedLine(body)
            }
        }
        if position < count {
            guard carry.count + count - position <= Self.lineLimit else { throw Self.lineTooLong }
            carry.append(copying: chunk.extracting(position..<count))
        }
        if case .borrowed(let range) = state {
            data.append(copying: chunk.extracting(range))
            state = .owned
        }
    }

    /// Delivers the unfinished event at the end of the stream.
    mutating func finish(_ body: (ServerSentEvent) throws(Failure) -> Void) throws(Failure) {
        if !carry.isEmpty { try carriedLine(body) }
        try dispatch(Span(), body)
    }

    private static let lineTooLong = Failure(.upstreamProtocol, "a line of the upstream's event stream is longer than \(lineLimit) bytes")
    private static let eventTooLong = Failure(.upstreamProtocol, "an event of the upstream's stream is longer than \(eventLimit) bytes")

    /// Parses the line in `carry`, which is complete now.
    private mutating func carriedLine(
        _ body: (ServerSentEvent) throws(Failure) -> Void
    ) throws(Failure) {
        var line: [UInt8] = []
        swap(&line, &carry)
        defer {
            // Keep the storage for the next unfinished line, unless this line was unusually long.
            if line.capacity <= 16 * 1024 {
                line.removeAll(keepingCapacity: true)
                swap(&line, &carry)
            }
        }
        try self.line(line.span, 0..<line.count, isChunk: false, body)
    }

    /// Parses one line without its end. A blank line dispatches the event.
    /// - Parameter isChunk: Whether `bytes` is the current chunk, in which data may be borrowed.
    private mutating func line(
        _ bytes: Span<UInt8>, _ range: Range<Int>, isChunk: Bool, _ body: (ServerSentEvent) throws(Failure) -> Void
    ) throws(Failure) {
        var start = range.lowerBound
        let end = range.upperBound
        if isFirstLine {
            isFirstLine = false
            if end - start >= 3, bytes[start] == 0xEF, bytes[start + 1] == 0xBB, bytes[start + 2] == 0xBF { start += 3 }
        }
        guard start < end else {
            return try dispatch(bytes, body)
        }
        let colon = bytes.firstOffset(of: UInt8(ascii: ":"), in: start..<end) ?? end
        var value = min(colon + 1, end)
        if value < end, bytes[value] == 0x20, colon > start { value += 1 }
        let field = bytes.extracting(start..<colon)
        switch field.count {
        case 0: Self.replace(&comment, bytes.extracting(value..<end).extracting(first: Self.keptCommentBytes))
        case 4 where field.equals("data"): try append(bytes, value..<end, isChunk: isChunk)
        case 5 where field.equals("event"): Self.replace(&name, bytes.extracting(value..<end).extracting(first: Self.keptNameBytes))
        case 2 where field.equals("id"), 5 where field.equals("retry"): break
        default: foreignLines += 1
        }
    }

    private static func replace(_ buffer: inout [UInt8], _ bytes: Span<UInt8>) {
        buffer.removeAll(keepingCapacity: true)
        buffer.append(copying: bytes)
    }

    /// Appends a data line to the current event.
    private mutating func append(_ bytes: Span<UInt8>, _ range: Range<Int>, isChunk: Bool) throws(Failure) {
        switch state {
        case .none:
            if isChunk {
                state = .borrowed(range)
            } else {
                data.append(copying: bytes.extracting(range))
                state = .owned
            }
            return
        case .borrowed(let first):
            // A borrowed range always belongs to the current chunk: no carried line can follow it within that chunk.
            data.append(copying: bytes.extracting(first))
            state = .owned
        case .owned: break
        }
        guard data.count + range.count < Self.eventLimit else { throw Self.eventTooLong }
        data.append(0x0A)
        data.append(copying: bytes.extracting(range))
    }

    /// Delivers the current event, if it has data or a name, and resets the parser for the next one.
    private mutating func dispatch(
        _ chunk: Span<UInt8>, _ body: (ServerSentEvent) throws(Failure) -> Void
    ) throws(Failure) {
        defer {
            state = .none
            if data.capacity > 16 * 1024 { data = [] } else { data.removeAll(keepingCapacity: true) }
            name.removeAll(keepingCapacity: true)
            comment.removeAll(keepingCapacity: true)
        }
        if case .none = state, name.isEmpty { return }
        eventCount += 1
        switch state {
        case .none: try body(ServerSentEvent(name: name.span, data: Span(), comment: comment.span))
        case .borrowed(let range): try body(ServerSentEvent(name: name.span, data: chunk.extracting(range), comment: comment.span))
        case .owned: try body(ServerSentEvent(name: name.span, data: data.span, comment: comment.span))
        }
    }
}
