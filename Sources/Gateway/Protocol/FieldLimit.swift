import Contract

/// Upper bounds in bytes of UTF-8 for names that clients send. Longer ones are refused with MALFORMED_PAYLOAD, so that no log line, key or
/// heartbeat grows with them.
enum FieldLimit {
    static let requestID = 128
    static let sessionID = 128
    static let model = 256
    static let functionName = 64
    static let interruptReason = 64
}

extension String {
    /// The longest prefix of whole characters' scalars within `count` bytes of UTF-8, for quoting outside text in messages.
    func truncated(toBytes count: Int) -> String {
        utf8.count <= count ? self : String(decoding: utf8.prefix(count), as: UTF8.self)
    }

    /// - Throws: MALFORMED_PAYLOAD that names the field and its limit.
    func bounded(_ field: String, _ maximum: Int, requestID: String? = nil) throws(ProtocolError) -> String {
        guard utf8.count <= maximum else {
            throw .malformed("\"\(field)\" is longer than \(maximum) bytes", requestID: requestID)
        }
        return self
    }
}
