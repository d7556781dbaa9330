/// Why a loop could not be made or a socket could not be watched.
package struct LoopError: Error, Sendable, CustomStringConvertible {
    /// The system call that failed.
    package let call: String
    /// Its errno.
    package let number: Int32

    package var description: String { "\(call) failed with errno \(number)" }
}
