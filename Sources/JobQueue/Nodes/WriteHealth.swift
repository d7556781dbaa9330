import RedisClient
import Synchronization

/// Whether Redis accepts the writes of this node, as shown by its heartbeats and submissions. Thread-safe.
///
/// Redis can be reachable and still reject writes: its disk or memory is full, or too few replicas are connected.
package final class WriteHealth: Sendable {
    private let code = Mutex<String?>(nil)

    package init() {}

    /// Why the node cannot work at the moment, for its readiness; nil when Redis accepts writes.
    package var problem: String? { code.withLock { $0 }.map { "Redis rejects writes (\($0))" } }

    /// Records the result of a write; nil: accepted. Errors that concern one key, and those that the connection reports itself, change
    /// nothing.
    package func record(_ error: QueueError?) {
        guard let error else { return code.withLock { $0 = nil } }
        if Self.concernsAllWrites(error) { code.withLock { $0 = Self.code(of: error) } }
    }

    /// The first error in a pipeline's replies that concerns all writes.
    static func rejection(in replies: [RESPValue]) -> QueueError? {
        for reply in replies {
            guard case .error(let text) = reply else { continue }
            let error = RedisError(.server, text)
            if concernsAllWrites(error) { return error }
        }
        return nil
    }

    /// The codes with which Redis rejects every write. Inside a script they may come after `ERR`.
    private static let codes: Set<String> = ["OOM", "MISCONF", "READONLY", "NOREPLICAS", "NOPERM", "NOAUTH", "CLUSTERDOWN", "MASTERDOWN"]

    private static func concernsAllWrites(_ error: QueueError) -> Bool {
        (error.isRejection || error.refusal != nil) && codes.contains(code(of: error))
    }

    /// The code of an error: its first word, or the second one after `ERR`. The rest of the text may quote configuration. The connection repeats
    /// commands that Redis refused to execute; after their deadline the code is that of the last refusal.
    private static func code(of error: QueueError) -> String {
        let words = (error.refusal ?? error.message).split(separator: " ", maxSplits: 2).prefix(2)
        return String((words.first == "ERR" ? words.last : words.first) ?? "")
    }
}
