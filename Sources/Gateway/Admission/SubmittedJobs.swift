import Contract
import JobQueue
import NIOConcurrencyHelpers

/// The jobs submitted with `POST /v1/jobs` to this gateway, which count as running requests of their tenants. Thread-safe.
///
/// The gateway gets no event when they end, since following them would cost as much as relaying them. Their records are read instead, but
/// only when a tenant has reached its limit.
final class SubmittedJobs: Sendable {
    /// Maximum job records read at a time, oldest first.
    private static let batch = 1_000

    private let tenants: TenantLedger
    /// Job ids by tenant, oldest first. Bounded by the tenant's limit of running requests.
    private let jobs = NIOLockedValueBox<[String: [JobID]]>([:])

    init(tenants: TenantLedger) { self.tenants = tenants }

    /// Counts one more job. When the tenant is at its limit, first removes jobs that have ended.
    /// - Returns: false when the tenant is still at its limit.
    func admit(_ id: JobID, of tenant: String, queue: JobProducer) async -> Bool {
        // Without a limit nothing is counted.
        guard tenants.maximum > 0 else { return true }
        if !tenants.admitSubmitted(tenant) {
            await removeEnded(of: tenant, queue)
            guard tenants.admitSubmitted(tenant) else { return false }
        }
        jobs.withLockedValue { $0[tenant, default: []].append(id) }
        return true
    }

    /// Stops counting a job whose submission failed.
    func remove(_ id: JobID, of tenant: String) { remove([id], of: tenant) }

    /// Removes ended jobs of all tenants at their limit. Called at every gateway heartbeat, because requests on sockets and completions are
    /// admitted without reading Redis.
    func removeEnded(_ queue: JobProducer) async {
        for tenant in jobs.withLockedValue({ Array($0.keys) }) where !tenants.hasRoom(tenant) { await removeEnded(of: tenant, queue) }
    }

    /// Reads the states of the tenant's oldest jobs and removes those that have ended.
    private func removeEnded(of tenant: String, _ queue: JobProducer) async {
        let oldest = jobs.withLockedValue { Array($0[tenant, default: []].prefix(Self.batch)) }
        guard !oldest.isEmpty else { return }
        // While Redis is not reachable, they are still counted.
        guard let haveEnded = try? await queue.haveEnded(oldest) else { return }
        remove(Set(zip(oldest, haveEnded).filter(\.1).map(\.0)), of: tenant)
    }

    private func remove(_ ids: Set<JobID>, of tenant: String) {
        guard !ids.isEmpty else { return }
        let count = jobs.withLockedValue { jobs -> Int in
            guard var list = jobs[tenant] else { return 0 }
            let before = list.count
            list.removeAll(where: ids.contains)
            jobs[tenant] = list.isEmpty ? nil : list
            return before - list.count
        }
        tenants.removeSubmitted(tenant, count)
    }
}
