import Contract
import NIOConcurrencyHelpers

/// A bounded buffer of events between the event loop, which delivers them, and the task that writes one response. Thread-safe.
///
/// When more than `maximumSize` bytes are buffered, the reader is disconnected or falls behind and continues from the log, depending on
/// `Overflow`. A reader that takes nothing for `maximumSilentBeats` heartbeats is always disconnected.
final class EventInbox: Sendable {
    enum Delivery: Sendable, Equatable {
        /// At least one event, in order.
        case events([LoggedEvent])
        /// A heartbeat interval passed without events.
        case heartbeat
        /// The client disconnected. Final.
        case clientGone
        /// The reader was too slow and its connection is being closed. Final.
        case tooSlow
        /// Events were dropped: the reader continues from the log and calls `catchUp` before it follows the job again.
        case behind
    }

    /// How a full buffer is handled.
    enum Overflow: Sendable {
        /// `cut` ends with `tooSlow`; `fallBehind` drops the events and delivers `behind`.
        case cut, fallBehind
    }

    private struct State {
        var events: [LoggedEvent] = []
        var size = 0
        /// The final delivery, `clientGone` or `tooSlow`; nil while the inbox is open.
        var end: Delivery?
        var isBehind = false
        var reader: CheckedContinuation<Delivery, Never>?
        /// Heartbeats since the reader last called `next()`, counted while it is writing.
        var silentBeats = 0
    }

    private let state = NIOLockedValueBox(State())
    private let maximumSize: Int
    private let maximumSilentBeats: Int
    private let overflow: Overflow
    private let onTooSlow: @Sendable () -> Void

    /// - Parameters:
    ///   - maximumSize: maximum size of the buffered events, in bytes.
    ///   - maximumSilentBeats: heartbeats without a call of `next()` after which the reader counts as too slow.
    ///   - onTooSlow: must close the connection, because a writer blocked on a full socket does not call `next()`.
    init(maximumSize: Int, maximumSilentBeats: Int = 4, overflow: Overflow = .cut, onTooSlow: @escaping @Sendable () -> Void) {
        self.maximumSize = maximumSize
        self.maximumSilentBeats = maximumSilentBeats
        self.overflow = overflow
        self.onTooSlow = onTooSlow
    }

    /// Adds events, or passes them to a waiting reader directly. Events after the end, or while the reader is behind, are dropped.
    func deliver(_ events: [LoggedEvent]) {
        guard !events.isEmpty else { return }
        let size = events.reduce(0) { $0 + $1.approximateSize }
        let isOver = state.withLockedValue { state -> Bool in
            guard state.end == nil, !state.isBehind else { return false }
            if let reader = state.reader {
                state.reader = nil
                state.silentBeats = 0
                reader.resume(returning: .events(events))
                return false
            }
            // An empty buffer accepts a batch of any size, because the reader is not responsible for the size of a batch.
            guard state.events.isEmpty || state.size + size <= maximumSize else {
                state.events = []
                state.size = 0
                if overflow == .fallBehind {
                    state.isBehind = true
                    return false
                }
                state.end = .tooSlow
                return true
            }
            state.events += events
            state.size += size
            return false
        }
        if isOver { onTooSlow() }
    }

    /// Signals a heartbeat. Must be called at the heartbeat interval.
    func beat() {
        let isOver = state.withLockedValue { state -> Bool in
            guard state.end == nil else { return false }
            if let reader = state.reader {
                state.reader = nil
                state.silentBeats = 0
                reader.resume(returning: .heartbeat)
                return false
            }
            state.silentBeats += 1
            guard state.silentBeats >= maximumSilentBeats else { return false }
            state.end = .tooSlow
            state.events = []
            return true
        }
        if isOver { onTooSlow() }
    }

    /// Ends the `behind` state: the reader has read the log up to now and accepts new events again.
    func catchUp() {
        state.withLockedValue { state in
            state.isBehind = false
            state.events = []
            state.size = 0
        }
    }

    /// Resets the heartbeat count because the reader wrote something from another source.
    func readerMoved() { state.withLockedValue { $0.silentBeats = 0 } }

    /// Ends the inbox because the client disconnected, and discards buffered events.
    func clientGone() {
        state.withLockedValue { state in
            guard state.end == nil else { return }
            state.end = .clientGone
            state.events = []
            state.reader?.resume(returning: .clientGone)
            state.reader = nil
        }
    }

    /// Waits for the next delivery. Only one task may wait at a time. Cancelling it has the effect of `clientGone()`.
    func next() async -> Delivery {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                state.withLockedValue { state in
                    state.silentBeats = 0
                    if let end = state.end {
                        continuation.resume(returning: end)
                    } else if state.isBehind {
                        continuation.resume(returning: .behind)
                    } else if !state.events.isEmpty {
                        let events = state.events
                        state.events = []
                        state.size = 0
                        continuation.resume(returning: .events(events))
                    } else {
                        state.reader = continuation
                    }
                }
            }
        } onCancel: {
            clientGone()
        }
    }
}

extension LoggedEvent {
    /// Approximate size in memory, in bytes; only for bounding the buffer.
    fileprivate var approximateSize: Int {
        let overhead = 96
        return switch event {
        case .text(let text), .reasoning(let text): overhead + text.utf8.count
        case .audio(let audio): overhead + audio.data.utf8.count
        case .toolCall(let call): overhead + call.arguments.utf8.count
        default: overhead
        }
    }
}
