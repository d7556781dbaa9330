import NIOConcurrencyHelpers

/// Counts the unsent bytes of each tenant's WebSockets, event streams and completions. Thread-safe.
///
/// A connection is counted only while it is above a small threshold, so that clients that read fast enough cost nothing.
final class UnsentOutput: Sendable {
    /// The count of one tenant.
    struct Tenant: Sendable {
        fileprivate let name: String
        fileprivate let output: UnsentOutput

        /// Adds `bytes`, which may be negative.
        /// - Returns: whether the tenant is within its limit afterwards. The change is counted in either case.
        func change(by bytes: Int) -> Bool { output.change(name, by: bytes) }
    }

    private let maximum: Int
    private let bytes = NIOLockedValueBox<[String: Int]>([:])

    /// - Parameter maximum: maximum unsent bytes of one tenant; 0: no limit.
    init(maximum: Int) { self.maximum = maximum }

    func tenant(_ name: String) -> Tenant { Tenant(name: name, output: self) }

    /// Unsent bytes counted for a tenant.
    func held(by tenant: String) -> Int { bytes.withLockedValue { $0[tenant] ?? 0 } }

    private func change(_ tenant: String, by change: Int) -> Bool {
        bytes.withLockedValue { bytes in
            let held = (bytes[tenant] ?? 0) + change
            bytes[tenant] = held > 0 ? held : nil
            return maximum == 0 || held <= maximum
        }
    }
}
