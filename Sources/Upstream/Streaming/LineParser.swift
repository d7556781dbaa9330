import Contract
import Glibc

/// Lines ended by LF, from raw bytes at any slicing. One that lies whole within a chunk is not copied.
struct LineParser {
    static let lineLimit = EventStreamParser.lineLimit
    private var carry: [UInt8] = []

    /// - Parameter body: called for each line, its end left out; the bytes are valid during the call only.
    /// - Throws: what `body` throws, and `upstream_protocol` for a line over the limit.
    mutating func feed(
        _ chunk: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws(Failure) -> Void
    ) throws(Failure) {
        guard let base = chunk.baseAddress else { return }
        var position = 0
        while position < chunk.count {
            let found = memchr(base + position, 0x0A, chunk.count - position).map { UnsafeRawPointer($0) - base }
            let end = found ?? chunk.count
            guard carry.count + end - position <= Self.lineLimit else {
                throw Failure(.upstreamProtocol, "a line of the upstream's stream is longer than \(Self.lineLimit) bytes")
            }
            if found != nil, carry.isEmpty {
                try body(UnsafeRawBufferPointer(rebasing: chunk[position..<end]))
            } else {
                carry.append(contentsOf: chunk[position..<end])
                if found != nil { try carriedLine(body) }
            }
            position = end + 1
        }
    }

    /// The stream has ended: a last line without its end counts.
    mutating func finish(_ body: (UnsafeRawBufferPointer) throws(Failure) -> Void) throws(Failure) {
        if !carry.isEmpty { try carriedLine(body) }
    }

    private mutating func carriedLine(_ body: (UnsafeRawBufferPointer) throws(Failure) -> Void) throws(Failure) {
        let result: Result<Void, Failure> = carry.withUnsafeBytes { bytes in
            do throws(Failure) { return .success(try body(bytes)) } catch { return .failure(error) }
        }
        if carry.capacity > 16 * 1024 { carry = [] } else { carry.removeAll(keepingCapacity: true) }
        try result.get()
    }
}
