import NIOCore

/// Timeouts and limits of Redis connections.
package struct RedisSettings: Sendable {
    /// Number of replicas that must have a submission, an interrupt or the end of a job before it is acknowledged; 0 for none.
    package var waitReplicas = 0
    /// Timeout of one connection attempt, from name resolution to the end of the handshake.
    package var connectTimeout: TimeAmount = .seconds(5)
    /// Default timeout of a command, including the wait for a connection. If a sent command times out, the connection is closed.
    package var commandTimeout: TimeAmount = .seconds(5)
    /// Back-off between connection attempts: doubles from the lower to the upper bound, with full jitter.
    package var backoff: ClosedRange<TimeAmount> = .milliseconds(20)...(.seconds(2))
    /// Time without received bytes before which a connection is checked, see `CheckTimes`. A client with no command in flight sends a PING at
    /// the last check of this time, and closes the connection after the same time without a reply. A subscriber sends a PING at each check,
    /// and closes the connection when nothing was received for the whole time.
    package var silence: TimeAmount = .seconds(5)
    /// CA file for rediss://; nil for the system's CAs.
    package var caFile: String?
    /// PEM files of the client certificate's chain and of its key, for rediss:// servers that require one; both or none.
    package var certificateFile: String?
    package var keyFile: String?
    /// The password of the sentinels; nil for none. The login in the URL is the one of the servers.
    package var sentinelPassword: String?
    /// Maximum number of pipelines waiting for a connection. Further ones fail immediately with `.overloaded`.
    package var waitingMaximum = 10_000
    /// Maximum number of pipelines sent and not yet answered. Further ones fail immediately with `.overloaded`.
    package var inFlightMaximum = 100_000

    /// Maximum bytes of pipelines waiting for a connection, and separately of pipelines sent and not yet answered. Further ones fail
    /// immediately with `.overloaded`. A single pipeline is accepted at any size.
    package var bytesMaximum = 64 << 20
    /// Maximum bytes of one reply; a larger one ends the connection.
    package var replyMaximum = 256 << 20
    /// Maximum bytes of one published message; a larger one ends the connection.
    package var messageMaximum = 64 << 20

    package init() {}
}
