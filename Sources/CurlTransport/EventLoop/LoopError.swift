/// The failure of a system call, thrown if an event loop cannot be created or a socket cannot be watched.
package struct LoopError: Error, Sendable, CustomStringConvertible {
    /// Name of the system call.
    package let call: String
    /// The call's errno.
    package let number: Int32

    package var description: String { "\(call) failed with errno \(number)" }
}
