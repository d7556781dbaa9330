import NIOConcurrencyHelpers

/// Bytes that each tenant's clients have not taken yet: in WebSockets, event streams and completions. Can be used from any thread.
///
/// A connection is counted only while it holds more than a little, so that clients that keep up cost nothing.
final class UnsentOutput: Sendable {
    /// The share of one tenant.
    struct Tenant: Sendable {
        fileprivate let name: String
        fileprivate let output: UnsentOutput

        /// Changes what the tenant's connections hold.
        /// - Returns: whether all of them together are within the tenant's limit. The change is counted in either case.
        func change(by bytes: Int) -> Bool { output.change(name, by: bytes) }
    }

    private let maximum: Int
    private let bytes = NIOLockedValueBox<[String: Int]>([:])

    /// - Parameter maximum: bytes of one tenant; 0: no limit.
    init(maximum: Int) { self.maximum = maximum }

    func tenant(_ name: String) -> Tenant { Tenant(name: name, output: self) }

    /// Bytes that are counted for a tenant.
    func held(by tenant: String) -> Int { bytes.withLockedValue { $0[tenant] ?? 0 } }

    private func change(_ tenant: String, by change: Int) -> Bool {
        bytes.withLockedValue { bytes in
            let held = (bytes[tenant] ?? 0) + change
            bytes[tenant] = held > 0 ? held : nil
            return maximum == 0 || held <= maximum
        }
    }
}
