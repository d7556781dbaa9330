import Support

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
    mutating func line(_ line: Span<UInt8>) -> Step {
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
        if text.starts(withLowercased: "http/") {
            head = HTTPResponseHead(status: Self.status(text))
        } else if let colon = text.firstOffset(of: UInt8(ascii: ":"), in: text.indices) {
            read(
                name: text.extracting(0..<colon), value: text.extracting(droppingFirst: colon + 1))
        }
        return .more
    }

    /// Stores the value of a header that `HTTPResponseHead` has a property for.
    private mutating func read(name: Span<UInt8>, value: Span<UInt8>) {
        func text() -> String { String(decoding: Self.trimmed(value).extracting(first: Self.maximumValueBytes)) }
        switch name.count {
        case 10 where name.starts(withLowercased: "request-id"): head.requestID = head.requestID ?? text()
        case 11 where name.starts(withLowercased: "retry-after"): head.retryAfter = text()
        case 12 where name.starts(withLowercased: "content-type"):
            head.contentType = text().lowercased().prefix { $0 != ";" && $0 != " " }.description
        case 12 where name.starts(withLowercased: "x-request-id"): head.requestID = text()
        default: break
        }
    }

    /// Parses the three digits after the first space of a status line. Returns 0 if there is no valid number.
    private static func status(_ line: Span<UInt8>) -> Int {
        guard let space = line.firstOffset(of: UInt8(ascii: " "), in: line.indices) else { return 0 }
        var status = 0
        let digits = line.extracting(droppingFirst: space + 1).extracting(first: 3)
        for index in digits.indices {
            let byte = digits[index]
            guard byte &- 0x30 < 10 else { return 0 }
            status = status * 10 + Int(byte - 0x30)
        }
        return status
    }

    /// The bytes without leading and trailing white space and control characters.
    @_lifetime(copy bytes)
    private static func trimmed(_ bytes: Span<UInt8>) -> Span<UInt8> {
        var start = 0
        var end = bytes.count
        while start < end, bytes[start] <= 0x20 { start += 1 }
        while end > start, bytes[end - 1] <= 0x20 { end -= 1 }
        return bytes.extracting(start..<end)
    }
}
