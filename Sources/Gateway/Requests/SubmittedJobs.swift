import Contract
import JobQueue
import NIOConcurrencyHelpers
import RedisClient

/// Jobs that came by `POST /v1/jobs` to this gateway and count among their tenants' running requests.
///
/// Nobody here hears of their end, and to listen for it would cost as much as to relay them: their records are read, but only when a
/// tenant's places are used up.
final class SubmittedJobs: Sendable {
    /// The oldest, read at a time.
    private static let batch = 1_000

    private let tenants: TenantLedger
    /// The oldest first; no more of one tenant than it may have running.
    private let jobs = NIOLockedValueBox<[String: [JobID]]>([:])

    init(tenants: TenantLedger) { self.tenants = tenants }

    /// Counts one more, if there is room for it or can be made.
    func admit(_ id: JobID, of tenant: String, queue: JobQueue) async -> Bool {
        // Without a limit nothing needs to be known.
        guard tenants.maximum > 0 else { return true }
        if !tenants.admitSubmitted(tenant) {
            await look(at: tenant, queue)
            guard tenants.admitSubmitted(tenant) else { return false }
        }
        jobs.withLockedValue { $0[tenant, default: []].append(id) }
        return true
    }

    func remove(_ id: JobID, of tenant: String) { remove([id], of: tenant) }

    /// Called at every beat: requests on sockets and completions do not wait for such a look.
    func lookAtFull(_ queue: JobQueue) async {
        for tenant in jobs.withLockedValue({ Array($0.keys) }) where !tenants.hasRoom(tenant) { await look(at: tenant, queue) }
    }

    private func look(at tenant: String, _ queue: JobQueue) async {
        let oldest = jobs.withLockedValue { Array($0[tenant, default: []].prefix(Self.batch)) }
        guard !oldest.isEmpty else { return }
        var pipeline = RedisPipeline()
        for id in oldest { pipeline.append(["HGET", .string(queue.keys.record(id)), "state"]) }
        // Out of reach: they count on.
        guard let replies = try? await queue.redis.send(pipeline) else { return }
        let ended = zip(oldest, replies).filter { _, reply in
            switch reply {
            // Its record has expired, or Redis lost it.
            case .null: true
            case .bulk: JobState(rawValue: reply.text ?? "")?.isTerminal ?? true
            default: false
            }
        }
        remove(Set(ended.map(\.0)), of: tenant)
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
