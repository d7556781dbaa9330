import NIOCore

package struct RedisSettings: Sendable {
    /// For one attempt, from the look-up of the name to the answered handshake.
    package var connectTimeout: TimeAmount = .seconds(5)
    /// How long a command may take, waiting for a connection included; on expiry the connection is thrown away.
    package var commandTimeout: TimeAmount = .seconds(5)
    /// Back-off between attempts to connect: from, doubling to, full jitter.
    package var backoff: ClosedRange<TimeAmount> = .milliseconds(20)...(.seconds(2))
    /// After so long without a byte the server is asked by PING whether it is there: a client when nothing is in flight (and it then has as
    /// long to answer), a subscriber earlier, twice in this time, so that its connection is thrown away when so long nothing was heard.
    package var silence: TimeAmount = .seconds(5)
    /// CA file for rediss://; nil: the system's.
    package var caFile: String?
    /// Commands that may wait while there is no connection; beyond it a command fails at once.
    package var waitingMaximum = 10_000
    /// Pipelines that may be sent and not yet answered; beyond it a command fails at once with `.unavailable`.
    package var inFlightMaximum = 100_000

    /// Bytes of commands that may wait while there is no connection, and of commands that may be sent and not yet answered, each; beyond it a
    /// command fails at once with `.overloaded`. A command that has no others beside it is sent whatever its size.
    package var bytesMaximum = 64 << 20
    /// Bytes of one reply; a larger one ends the connection.
    package var replyMaximum = 256 << 20
    /// Bytes of one published message; a larger one ends the connection.
    package var messageMaximum = 64 << 20

    package init() {}
}
