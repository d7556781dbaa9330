import Contract

/// Upper bounds in bytes of UTF-8 for names that clients send. Longer ones are refused with MALFORMED_PAYLOAD, so that no log line, key or
/// heartbeat grows with them.
enum FieldLimit {
    static let requestID = NameLimit.id
    static let sessionID = NameLimit.id
    static let model = NameLimit.model
    static let functionName = 64
    static let interruptReason = NameLimit.reason
}

extension String {
    /// - Throws: MALFORMED_PAYLOAD that names the field and its limit.
    func bounded(_ field: String, _ maximum: Int, requestID: String? = nil) throws(ProtocolError) -> String {
        guard utf8.count <= maximum else {
            throw .malformed("\"\(field)\" is longer than \(maximum) bytes", requestID: requestID)
        }
        return self
    }
}
