import Contract
import NIOConcurrencyHelpers

/// The chat completions that this process runs. What Redis names beside them under this gateway's name is an earlier process's. Can be
/// asked from any thread.
package final class CompletionLedger: Sendable {
    private let jobs = NIOLockedValueBox<Set<JobID>>([])

    package init() {}

    func contains(_ id: JobID) -> Bool { jobs.withLockedValue { $0.contains(id) } }

    func insert(_ id: JobID) { jobs.withLockedValue { _ = $0.insert(id) } }

    /// - Returns: whether it was there.
    @discardableResult
    func remove(_ id: JobID) -> Bool { jobs.withLockedValue { $0.remove(id) != nil } }
}
