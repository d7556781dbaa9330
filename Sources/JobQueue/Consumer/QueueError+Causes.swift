import RedisClient

/// What a worker decides by, so that it need not know the texts of Redis.
extension RedisError {
    /// Redis was reached and replied with an error. Other errors are reported by the connection itself.
    package var isRejection: Bool { code == .server }
    /// Redis rejected the command because the consumer group, or its queue, does not exist.
    package var isMissingGroup: Bool { isRejection && message.contains("NOGROUP") }
    /// Redis rejected the command because the key has another type.
    package var isWrongType: Bool { isRejection && message.hasPrefix("WRONGTYPE") }
    /// A reply did not match its command; the connection was closed.
    package var isInvalidReply: Bool { code == .protocolViolation }
}
