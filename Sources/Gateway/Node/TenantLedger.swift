import Metrics
import NIOConcurrencyHelpers

/// How many requests each tenant has running on this gateway: those of its sessions, its chat completions and its jobs together. Can be asked from any thread.
package final class TenantLedger: Sendable {
    let maximum: Int
    private let counts = NIOLockedValueBox<[String: Int]>([:])
    private let gauge = Gauge(label: "sluice_gateway_requests_running")

    /// - Parameter maximum: of one tenant; 0: no limit.
    package init(maximum: Int) { self.maximum = maximum }

    func count(_ tenant: String) -> Int { counts.withLockedValue { $0[tenant, default: 0] } }

    func hasRoom(_ tenant: String) -> Bool { maximum == 0 || count(tenant) < maximum }

    /// Counts one more, if there is room for it.
    func admit(_ tenant: String) -> Bool {
        change { counts in
            guard maximum == 0 || counts[tenant, default: 0] < maximum else { return false }
            counts[tenant, default: 0] += 1
            return true
        }
    }

    /// Counts one that runs already, wherever it was admitted.
    func add(_ tenant: String) { change { $0[tenant, default: 0] += 1 } }

    func remove(_ tenant: String) {
        change { counts in
            let left = counts[tenant, default: 1] - 1
            counts[tenant] = left > 0 ? left : nil
        }
    }

    @discardableResult
    private func change<Value: Sendable>(_ body: (inout [String: Int]) -> Value) -> Value {
        let (value, total) = counts.withLockedValue { counts in
            let value = body(&counts)
            return (value, counts.values.reduce(0, +))
        }
        gauge.record(total)
        return value
    }
}
