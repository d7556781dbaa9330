/// Maximum lengths of external names, in bytes of UTF-8. Names are used in Redis keys, records, heartbeats and log lines, so they are
/// checked on input.
package enum NameLimit {
    package static let model = 256
    /// Job, session and request ids.
    package static let id = 128
    /// Workers and gateways.
    package static let node = 128
    /// Owners; an owner is the name of a tenant.
    package static let owner = 128
    /// Interrupt reasons.
    package static let reason = 64
    /// Function names of a session's function definitions.
    package static let function = 64
    /// A speech model, voice or audio format.
    package static let voice = 256
    /// A `traceparent` of any version.
    package static let traceparent = 512
}
