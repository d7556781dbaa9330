import NIOConcurrencyHelpers

/// A one-time signal that starts the drain, sent by SIGTERM or an operator. Thread-safe.
final class DrainSignal: Sendable {
    private struct State {
        var begun = false
        var waiting: [CheckedContinuation<Void, Never>] = []
    }

    private let state = NIOLockedValueBox(State())

    var hasBegun: Bool { state.withLockedValue(\.begun) }

    /// Starts the drain and resumes all waiters. Idempotent.
    func begin() {
        let waiting = state.withLockedValue { state in
            state.begun = true
            defer { state.waiting = [] }
            return state.waiting
        }
        for continuation in waiting { continuation.resume() }
    }

    /// Returns when the drain has begun, or when the task is cancelled.
    func wait() async {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let now = state.withLockedValue { state in
                    if state.begun || Task.isCancelled { return true }
                    state.waiting.append(continuation)
                    return false
                }
                if now { continuation.resume() }
            }
        } onCancel: {
            let waiting = state.withLockedValue { state in
                defer { state.waiting = [] }
                return state.waiting
            }
            for continuation in waiting { continuation.resume() }
        }
    }
}
