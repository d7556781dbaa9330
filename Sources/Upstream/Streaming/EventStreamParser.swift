import Contract
import Glibc

/// One server-sent event; its bytes are valid only during the call that hands it over.
struct ServerSentEvent {
    /// The `event` field; empty when there was none.
    let name: UnsafeRawBufferPointer
    /// The `data` lines, joined with LF; empty when there was none.
    let data: UnsafeRawBufferPointer
    /// The last comment before the event, without its colon. (DashScope says its status there.)
    let comment: UnsafeRawBufferPointer
}

/// Server-sent events from raw bytes at any slicing (WHATWG HTML, 9.2.6 "Interpreting an event stream").
///
/// Lines end with CR, LF or CRLF; a BOM at the start is dropped. A line that lies whole within a chunk is not copied, nor is the data of an
/// event that does. What the standard discards, an event that the end of the stream cuts off before its blank line, counts here when
/// `finish` is called:
/// providers are seen to leave the last blank line out, and whether a stream ended cleanly is known from HTTP.
/// `id` and `retry` are read and forgotten: upstreams are never reconnected to by event id.
struct EventStreamParser {
    static let lineLimit = 1 << 20
    /// Of all data lines of one event.
    static let eventLimit = 4 << 20
    private static let keptCommentBytes = 128
    private static let keptNameBytes = 128

    private enum Data {
        case none
        /// One line, inside the chunk that is being read.
        case borrowed(Range<Int>)
        /// In `data`.
        case owned
    }

    /// An unfinished line of earlier chunks.
    private var carry: [UInt8] = []
    private var data: [UInt8] = []
    private var name: [UInt8] = []
    private var comment: [UInt8] = []
    private var state = Data.none
    private var isFirstLine = true
    /// The last line ended with a CR at a chunk's end: an LF that comes next belongs to it.
    private var skipsLineFeed = false
    /// Lines whose field no event stream has: a stream of these is something else.
    private(set) var foreignLines = 0
    private(set) var eventCount = 0

    /// - Parameter body: called for each event that has data or a name.
    /// - Throws: what `body` throws, and `upstream_protocol` for a line or an event over its limit. The parser is of no use then.
    mutating func feed(
        _ chunk: UnsafeRawBufferPointer, _ body: (ServerSentEvent) throws(Failure) -> Void
    ) throws(Failure) {
        var position = 0
        let count = chunk.count
        if skipsLineFeed, count > 0 {
            skipsLineFeed = false
            if chunk[0] == 0x0A { position = 1 }
        }
        var nextLineFeed = -1
        while position < count {
            if nextLineFeed < position { nextLineFeed = Self.find(0x0A, in: chunk, from: position, to: count) ?? count }
            let end = Self.find(0x0D, in: chunk, from: position, to: nextLineFeed) ?? nextLineFeed
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
                carry.append(contentsOf: chunk[range])
                try carriedLine(body)
            }
        }
        if position < count {
            guard carry.count + count - position <= Self.lineLimit else { throw Self.lineTooLong }
            carry.append(contentsOf: chunk[position..<count])
        }
        if case .borrowed(let range) = state {
            data.append(contentsOf: chunk[range])
            state = .owned
        }
    }

    /// The stream has ended: what was still open counts.
    mutating func finish(_ body: (ServerSentEvent) throws(Failure) -> Void) throws(Failure) {
        if !carry.isEmpty { try carriedLine(body) }
        try dispatch(UnsafeRawBufferPointer(start: nil, count: 0), body)
    }

    private static let lineTooLong = Failure(.upstreamProtocol, "a line of the event stream is longer than \(lineLimit) bytes")
    private static let eventTooLong = Failure(.upstreamProtocol, "an event of the stream is longer than \(eventLimit) bytes")

    private static func find(_ byte: UInt8, in chunk: UnsafeRawBufferPointer, from start: Int, to end: Int) -> Int? {
        guard start < end, let base = chunk.baseAddress, let found = memchr(base + start, Int32(byte), end - start) else { return nil }
        return UnsafeRawPointer(found) - base
    }

    private mutating func carriedLine(
        _ body: (ServerSentEvent) throws(Failure) -> Void
    ) throws(Failure) {
        var line: [UInt8] = []
        swap(&line, &carry)
        let result: Result<Void, Failure> = line.withUnsafeBytes { bytes in
            do throws(Failure) { return .success(try self.line(bytes, 0..<bytes.count, isChunk: false, body)) } catch {
                return .failure(error)
            }
        }
        // Its storage serves the next unfinished line, unless it was an unusually long one.
        if line.capacity <= 16 * 1024 {
            line.removeAll(keepingCapacity: true)
            swap(&line, &carry)
        }
        try result.get()
    }

    private mutating func line(
        _ bytes: UnsafeRawBufferPointer, _ range: Range<Int>, isChunk: Bool, _ body: (ServerSentEvent) throws(Failure) -> Void
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
        let colon = Self.find(UInt8(ascii: ":"), in: bytes, from: start, to: end) ?? end
        var value = min(colon + 1, end)
        if value < end, bytes[value] == 0x20, colon > start { value += 1 }
        switch colon - start {
        case 0: Self.replace(&comment, bytes[value..<end].prefix(Self.keptCommentBytes))
        case 4 where Self.is(bytes, start, "data"): try append(bytes, value..<end, isChunk: isChunk)
        case 5 where Self.is(bytes, start, "event"): Self.replace(&name, bytes[value..<end].prefix(Self.keptNameBytes))
        case 2 where Self.is(bytes, start, "id"), 5 where Self.is(bytes, start, "retry"): break
        default: foreignLines += 1
        }
    }

    private static func `is`(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ name: StaticString) -> Bool {
        memcmp(bytes.baseAddress! + start, name.utf8Start, name.utf8CodeUnitCount) == 0
    }

    private static func replace(_ buffer: inout [UInt8], _ bytes: Slice<UnsafeRawBufferPointer>) {
        buffer.removeAll(keepingCapacity: true)
        buffer.append(contentsOf: bytes)
    }

    private mutating func append(_ bytes: UnsafeRawBufferPointer, _ range: Range<Int>, isChunk: Bool) throws(Failure) {
        switch state {
        case .none:
            if isChunk {
                state = .borrowed(range)
            } else {
                data.append(contentsOf: bytes[range])
                state = .owned
            }
            return
        case .borrowed(let first):
            // Borrowed data is of the chunk being read; a carried line never follows it within the same chunk.
            data.append(contentsOf: bytes[first])
            state = .owned
        case .owned: break
        }
        guard data.count + range.count < Self.eventLimit else { throw Self.eventTooLong }
        data.append(0x0A)
        data.append(contentsOf: bytes[range])
    }

    private mutating func dispatch(
        _ chunk: UnsafeRawBufferPointer, _ body: (ServerSentEvent) throws(Failure) -> Void
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
        case .none: try hand(UnsafeRawBufferPointer(start: nil, count: 0), body)
        case .borrowed(let range): try hand(UnsafeRawBufferPointer(rebasing: chunk[range]), body)
        case .owned:
            let result: Result<Void, Failure> = data.withUnsafeBytes { bytes in
                do throws(Failure) { return .success(try hand(bytes, body)) } catch { return .failure(error) }
            }
            try result.get()
        }
    }

    private func hand(
        _ data: UnsafeRawBufferPointer, _ body: (ServerSentEvent) throws(Failure) -> Void
    ) throws(Failure) {
        let result: Result<Void, Failure> = name.withUnsafeBytes { name in
            comment.withUnsafeBytes { comment in
                do throws(Failure) {
                    return .success(try body(ServerSentEvent(name: name, data: data, comment: comment)))
                } catch { return .failure(error) }
            }
        }
        try result.get()
    }
}
