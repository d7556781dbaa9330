/// The exit status of a command.
package enum ExitStatus: Int32, Sendable {
    case done = 0
    /// The command ran and failed.
    case failed = 1
    /// Invalid arguments or settings.
    case usage = 2
    /// Redis, the gateway or the upstream is unreachable (EX_UNAVAILABLE of sysexits).
    case unavailable = 69
}

/// An error that ends a command with an exit status and a message of one or more lines on standard error.
package struct CommandFailure: Error, Sendable, CustomStringConvertible {
    package let status: ExitStatus
    package let message: String

    package init(_ status: ExitStatus, _ message: String) {
        self.status = status
        self.message = message
    }

    package var description: String { message }
}
