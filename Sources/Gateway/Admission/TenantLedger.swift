import Metrics
import NIOConcurrencyHelpers

/// Counts the running requests of each tenant on this gateway: of its sessions, chat completions and submitted jobs together. Thread-safe.
package final class TenantLedger: Sendable {
    private struct Count {
        /// Requests whose events this gateway relays; removed when they end.
        var relayed = 0
        /// Jobs of `SubmittedJobs`. Some may have ended already.
        var submitted = 0
        var total: Int { relayed + submitted }
    }

    let maximum: Int
    private let counts = NIOLockedValueBox<[String: Count]>([:])
    private let gauge = Gauge(label: "sluice_gateway_requests_running")

    /// - Parameter maximum: running requests per tenant; 0: no limit.
    package init(maximum: Int) { self.maximum = maximum }

    func count(_ tenant: String) -> Int { counts.withLockedValue { $0[tenant]?.total ?? 0 } }

    func hasRoom(_ tenant: String) -> Bool { maximum == 0 || count(tenant) < maximum }

    /// Counts one more relayed request.
    /// - Returns: false when the tenant is at its limit.
    func admit(_ tenant: String) -> Bool { admit(tenant, \.relayed) }
    /// The same for a submitted job.
    func admitSubmitted(_ tenant: String) -> Bool { admit(tenant, \.submitted) }

    /// Counts a relayed request that was admitted before, possibly by another gateway, without checking the limit.
    func add(_ tenant: String) { change { $0[tenant, default: Count()].relayed += 1 } }

    func remove(_ tenant: String) { remove(tenant, 1, \.relayed) }
    func removeSubmitted(_ tenant: String, _ number: Int) { remove(tenant, number, \.submitted) }

    private func admit(_ tenant: String, _ kind: WritableKeyPath<Count, Int>) -> Bool {
        change { counts in
            guard maximum == 0 || counts[tenant]?.total ?? 0 < maximum else { return false }
            counts[tenant, default: Count()][keyPath: kind] += 1
            return true
        }
    }

    private func remove(_ tenant: String, _ number: Int, _ kind: WritableKeyPath<Count, Int>) {
        change { counts in
            guard var count = counts[tenant] else { return }
            count[keyPath: kind] = max(0, count[keyPath: kind] - number)
            counts[tenant] = count.total > 0 ? count : nil
        }
    }

    /// Changes the counts under the lock and updates the gauge.
    @discardableResult
    private func change<Value: Sendable>(_ body: (inout [String: Count]) -> Value) -> Value {
        let (value, relayed) = counts.withLockedValue { counts in
            let value = body(&counts)
            return (value, counts.values.reduce(0) { $0 + $1.relayed })
        }
        gauge.record(relayed)
        return value
    }
}
