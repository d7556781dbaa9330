/// Settings of the HTTP transport, shared by all upstreams.
package struct TransportSettings: Sendable {
    /// Maximum time for name resolution, TCP and TLS together.
    package var connectTimeout: Duration = .seconds(5)
    /// PEM file with the trusted certificate authorities; nil means the system's.
    package var caFile: String?
    /// Maximum number of idle connections kept open for reuse.
    package var connectionsKept = 256
    /// Whether to negotiate HTTP/2 over TLS.
    package var http2 = false
    package init() {}
}
