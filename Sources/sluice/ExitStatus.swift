/// What the command line tells its caller by the exit status.
enum ExitStatus: Int32, Sendable {
    case done = 0
    case failed = 1
    /// Wrong usage or wrong settings.
    case usage = 2
    /// Redis, gateway or upstream out of reach (EX_UNAVAILABLE of sysexits).
    case unavailable = 69
}

/// Ends a command with a message for people, one line or more, on standard error.
struct CommandFailure: Error, Sendable, CustomStringConvertible {
    let status: ExitStatus
    let message: String

    init(_ status: ExitStatus, _ message: String) {
        self.status = status
        self.message = message
    }

    var description: String { message }
}
