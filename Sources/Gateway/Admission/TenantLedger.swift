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

    private struct State {
        var counts: [String: Count] = [:]
        /// The relayed requests of all tenants.
        var relayed = 0
    }

    let maximum: Int
    private let state = NIOLockedValueBox(State())
    private let gauge = Gauge(label: "sluice_gateway_requests_running")

    /// - Parameter maximum: running requests per tenant; 0: no limit.
    package init(maximum: Int) { self.maximum = maximum }

    func count(_ tenant: String) -> Int { state.withLockedValue { $0.counts[tenant]?.total ?? 0 } }

    func hasRoom(_ tenant: String) -> Bool { maximum == 0 || count(tenant) < maximum }

    /// Counts one more relayed request.
    /// - Returns: false when the tenant is at its limit.
    func admit(_ tenant: String) -> Bool { admit(tenant, \.relayed) }
    /// The same for a submitted job.
    func admitSubmitted(_ tenant: String) -> Bool { admit(tenant, \.submitted) }

    /// Counts a relayed request that was admitted before, possibly by another gateway, without checking the limit.
    func add(_ tenant: String) { change(tenant) { $0.relayed += 1 } }

    func remove(_ tenant: String) { change(tenant) { $0.relayed = max(0, $0.relayed - 1) } }
    func removeSubmitted(_ tenant: String, _ number: Int) { change(tenant) { $0.submitted = max(0, $0.submitted - number) } }

    private func admit(_ tenant: String, _ kind: WritableKeyPath<Count, Int>) -> Bool {
        change(tenant) { count in
            guard maximum == 0 || count.total < maximum else { return false }
            count[keyPath: kind] += 1
            return true
        }
    }

    /// Changes a tenant's count under the lock and updates the gauge. Takes the same time for any number of tenants.
    @discardableResult
    private func change<Value: Sendable>(_ tenant: String, _ body: (inout Count) -> Value) -> Value {
        let (value, relayed) = state.withLockedValue { state in
            var count = state.counts[tenant] ?? Count()
            let before = count.relayed
            let value = body(&count)
            state.relayed += count.relayed - before
            state.counts[tenant] = count.total > 0 ? count : nil
            return (value, state.relayed)
        }
        gauge.record(relayed)
        return value
    }
}
