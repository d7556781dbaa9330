import NIOConcurrencyHelpers
import NIOCore

/// The waits between the rounds of a periodic activity. Thread-safe.
final class RoundTimer: Sendable {
    private struct State {
        var isStopped = false
        var waiting: CheckedContinuation<Void, Never>?
        var alarm: Scheduled<Void>?
    }

    private let eventLoop: any EventLoop
    private let state = NIOLockedValueBox(State())

    init(_ eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    var isStopped: Bool { state.withLockedValue(\.isStopped) }

    /// Returns after `time`, or when `stop` is called; at once after `stop`. One wait at a time.
    func wait(for time: TimeAmount) async {
        await withCheckedContinuation { continuation in
            let isStopped = state.withLockedValue { state in
                guard !state.isStopped else { return true }
                state.waiting = continuation
                state.alarm = eventLoop.scheduleTask(in: time) { self.endWait() }
                return false
            }
            if isStopped { continuation.resume() }
        }
    }

    /// Ends the current wait and all later ones. Idempotent.
    func stop() {
        state.withLockedValue { state in
            state.isStopped = true
            state.alarm?.cancel()
            state.alarm = nil
        }
        endWait()
    }

    private func endWait() {
        let waiting = state.withLockedValue { state in
            defer { state.waiting = nil }
            return state.waiting
        }
        waiting?.resume()
    }
}
