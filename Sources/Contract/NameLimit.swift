/// Bytes of UTF-8 that a name from outside may have. Names reach Redis keys, records, heartbeats and log lines, so they are bounded where
/// they come in.
package enum NameLimit {
    package static let model = 256
    /// Job and session ids.
    package static let id = 128
    /// Workers and gateways.
    package static let node = 128
    /// Owners, which are the tenants' names.
    package static let owner = 128
    /// Interrupt reasons.
    package static let reason = 64
    /// A speech model, voice or audio format.
    package static let voice = 256
    /// A `traceparent` of any version.
    package static let traceparent = 512
}

extension String {
    /// The longest beginning that has at most so many bytes of UTF-8 and does not end inside a scalar.
    package func cut(toBytes maximum: Int) -> String {
        guard utf8.count > maximum else { return self }
        var end = utf8.index(utf8.startIndex, offsetBy: Swift.max(0, maximum))
        while utf8[end] & 0xC0 == 0x80 { end = utf8.index(before: end) }
        return String(self[..<end])
    }
}
