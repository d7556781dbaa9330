import Synchronization

/// The owners that are known to have a daily limit of tokens. Thread-safe, bounded.
final class TenantQuotas: Sendable {
    /// Maximum number of owners; one that is forgotten is found again at its next submission.
    private static let maximum = 10_000

    private let owners = Mutex<Set<String>>([])

    func contains(_ owner: String) -> Bool { owners.withLock { $0.contains(owner) } }

    func insert(_ owner: String) {
        owners.withLock { owners in
            if owners.count >= Self.maximum { owners.removeFirst() }
            owners.insert(owner)
        }
    }
}
