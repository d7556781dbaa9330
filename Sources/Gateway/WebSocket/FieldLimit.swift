import Contract

/// Maximum lengths, in bytes of UTF-8, of names that clients send. Longer ones are rejected with MALFORMED_PAYLOAD, which bounds the log
/// lines, Redis keys and messages that contain them.
enum FieldLimit {
    static let requestID = NameLimit.id
    static let sessionID = NameLimit.id
    static let model = NameLimit.model
    static let functionName = 64
    static let interruptReason = NameLimit.reason
}

extension String {
    /// Checks the length in bytes of UTF-8.
    /// - Returns: the string itself.
    /// - Throws: MALFORMED_PAYLOAD with the field's name and limit.
    func bounded(_ field: String, _ maximum: Int, requestID: String? = nil) throws(ProtocolError) -> String {
        guard utf8.count <= maximum else {
            throw .malformed("\"\(field)\" is longer than \(maximum) bytes", requestID: requestID)
        }
        return self
    }
}
