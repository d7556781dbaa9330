import Contract
import Glibc

/// Parser for lines that end with LF, independent of how the bytes are split. Lines that are complete within a chunk are not copied.
struct LineParser {
    /// Maximum number of bytes of one line.
    static let lineLimit = EventStreamParser.lineLimit
    /// The start of a line that continues in the next chunk.
    private var carry: [UInt8] = []

    /// - Parameter body: Called for each line without its end; the bytes are valid only during the call.
    /// - Throws: Errors of `body`, and `upstream_protocol` for a line over the limit.
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

    /// Delivers a last line without LF at the end of the stream.
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
