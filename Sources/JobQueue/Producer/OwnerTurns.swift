import NIOCore
import Synchronization

/// Limits the bytes that each owner moves over a shared connection at a time; further calls of the owner wait in order. A command of
/// another owner therefore waits behind a bounded number of bytes of each owner. Thread-safe.
package final class OwnerTurns: Sendable {
    private struct Waiter {
        let bytes: Int
        let continuation: CheckedContinuation<Void, Never>
    }

    private struct Owner {
        var bytes = 0
        var waiting = CircularBuffer<Waiter>()
    }

    private let maximum: Int
    private let owners = Mutex<[String: Owner]>([:])

    /// - Parameter maximum: maximum bytes of one owner at a time. A larger call is allowed when it is alone.
    package init(maximum: Int) { self.maximum = maximum }

    /// Bytes of an owner's calls in progress, and the number of its waiting calls.
    package func load(of owner: String) -> (bytes: Int, waiting: Int) {
        owners.withLock { ($0[owner]?.bytes ?? 0, $0[owner]?.waiting.count ?? 0) }
    }

    /// Waits until the owner may move `bytes` more. `end` must follow with the same arguments.
    package func begin(_ bytes: Int, of owner: String) async {
        await withCheckedContinuation { continuation in
            let mayBegin = owners.withLock { owners in
                var state = owners[owner] ?? Owner()
                defer { owners[owner] = state }
                guard state.waiting.isEmpty, state.bytes == 0 || state.bytes + bytes <= maximum else {
                    state.waiting.append(Waiter(bytes: bytes, continuation: continuation))
                    return false
                }
                state.bytes += bytes
                return true
            }
            if mayBegin { continuation.resume() }
        }
    }

    /// Ends a call that `begin` allowed, and lets waiting ones begin.
    package func end(_ bytes: Int, of owner: String) {
        let begun = owners.withLock { owners -> [Waiter] in
            guard var state = owners[owner] else { return [] }
            state.bytes -= bytes
            var begun: [Waiter] = []
            while let next = state.waiting.first, state.bytes == 0 || state.bytes + next.bytes <= maximum {
                state.waiting.removeFirst()
                state.bytes += next.bytes
                begun.append(next)
            }
            owners[owner] = begun.isEmpty && state.bytes == 0 ? nil : state
            return begun
        }
        for waiter in begun { waiter.continuation.resume() }
    }
}
