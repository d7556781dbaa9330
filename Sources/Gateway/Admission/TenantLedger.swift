import Metrics
import NIOConcurrencyHelpers

/// How many requests each tenant has running on this gateway: those of its sessions, its chat completions and its jobs together. Can be
/// asked from any thread.
package final class TenantLedger: Sendable {
    private struct Count {
        /// Relayed by this gateway, which hears of their end.
        var relayed = 0
        /// See `SubmittedJobs`: some of them may have ended.
        var submitted = 0
        var total: Int { relayed + submitted }
    }

    let maximum: Int
    private let counts = NIOLockedValueBox<[String: Count]>([:])
    private let gauge = Gauge(label: "sluice_gateway_requests_running")

    /// - Parameter maximum: of one tenant; 0: no limit.
    package init(maximum: Int) { self.maximum = maximum }

    func count(_ tenant: String) -> Int { counts.withLockedValue { $0[tenant]?.total ?? 0 } }

    func hasRoom(_ tenant: String) -> Bool { maximum == 0 || count(tenant) < maximum }

    /// Counts one more, if there is room for it.
    func admit(_ tenant: String) -> Bool { admit(tenant, \.relayed) }
    func admitSubmitted(_ tenant: String) -> Bool { admit(tenant, \.submitted) }

    /// Counts one that runs already, wherever it was admitted.
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
