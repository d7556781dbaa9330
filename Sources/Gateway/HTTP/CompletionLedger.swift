import Contract
import NIOConcurrencyHelpers

/// The ids of the chat completions that this process runs. Other requests that Redis lists under this gateway's name belong to an earlier
/// process. Thread-safe.
package final class CompletionLedger: Sendable {
    private let jobs = NIOLockedValueBox<Set<JobID>>([])

    package init() {}

    func contains(_ id: JobID) -> Bool { jobs.withLockedValue { $0.contains(id) } }

    func insert(_ id: JobID) { jobs.withLockedValue { _ = $0.insert(id) } }

    /// - Returns: whether the id was present.
    @discardableResult
    func remove(_ id: JobID) -> Bool { jobs.withLockedValue { $0.remove(id) != nil } }
}
