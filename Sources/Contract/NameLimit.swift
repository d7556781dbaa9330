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
