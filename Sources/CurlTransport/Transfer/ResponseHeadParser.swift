/// Parses the header lines of a response from libcurl. Each call passes one line, with folded lines joined and the line end included.
struct ResponseHeadParser {
    /// Result of one line: continue, a complete head of a final response, or a size over `HTTPResponseHead.maximumBytes`.
    enum Step { case more, answered(HTTPResponseHead), tooLarge }

    /// Maximum number of bytes kept of a header value.
    private static let maximumValueBytes = 1_024

    private var head = HTTPResponseHead()
    private var bytes = 0
    private var hasEnded = false

    /// Parses one line. Lines after the head (trailers) count towards the size limit only.
    mutating func line(_ line: UnsafeRawBufferPointer) -> Step {
        bytes += line.count
        guard bytes <= HTTPResponseHead.maximumBytes else { return .tooLarge }
        // Trailers come after the body.
        guard !hasEnded else { return .more }
        let text = Self.trimmed(line)
        if text.isEmpty {
            guard head.status >= 200 else { return .more }
            hasEnded = true
            return .answered(head)
        }
        if Self.starts(text, with: "http/") {
            head = HTTPResponseHead(status: Self.status(text))
        } else if let colon = text.firstIndex(of: UInt8(ascii: ":")) {
            read(
                name: UnsafeRawBufferPointer(rebasing: text[text.startIndex..<colon]),
                value: UnsafeRawBufferPointer(rebasing: text[(colon + 1)...]))
        }
        return .more
    }

    /// Stores the value of a header that `HTTPResponseHead` has a property for.
    private mutating func read(name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) {
        func text() -> String { String(decoding: Self.trimmed(value).prefix(Self.maximumValueBytes), as: UTF8.self) }
        switch name.count {
        case 10 where Self.starts(name, with: "request-id"): head.requestID = head.requestID ?? text()
        case 11 where Self.starts(name, with: "retry-after"): head.retryAfter = text()
        case 12 where Self.starts(name, with: "content-type"):
            head.contentType = text().lowercased().prefix { $0 != ";" && $0 != " " }.description
        case 12 where Self.starts(name, with: "x-request-id"): head.requestID = text()
        default: break
        }
    }

    /// Parses the three digits after the first space of a status line. Returns 0 if there is no valid number.
    private static func status(_ line: UnsafeRawBufferPointer) -> Int {
        guard let space = line.firstIndex(of: UInt8(ascii: " ")) else { return 0 }
        var status = 0
        for byte in line[(space + 1)...].prefix(3) {
            guard byte &- 0x30 < 10 else { return 0 }
            status = status * 10 + Int(byte - 0x30)
        }
        return status
    }

    /// Compares the start of `bytes` with `prefix`, ignoring case. `prefix` must be in lower case.
    private static func starts(_ bytes: UnsafeRawBufferPointer, with prefix: StaticString) -> Bool {
        let count = prefix.utf8CodeUnitCount
        guard bytes.count >= count else { return false }
        for index in 0..<count {
            let byte = bytes[index]
            let lower = byte &- 0x41 < 26 ? byte | 0x20 : byte
            guard lower == prefix.utf8Start[index] else { return false }
        }
        return true
    }

    /// The bytes without leading and trailing white space and control characters.
    private static func trimmed(_ bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        var start = 0
        var end = bytes.count
        while start < end, bytes[start] <= 0x20 { start += 1 }
        while end > start, bytes[end - 1] <= 0x20 { end -= 1 }
        return UnsafeRawBufferPointer(rebasing: bytes[start..<end])
    }
}
