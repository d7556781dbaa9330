import Contract
import NIOConcurrencyHelpers

/// What has arrived for one response and is not yet written: filled on the event loop, emptied by the task that writes.
///
/// Bounded: a reader that lets more than `maximumSize` bytes pile up is too slow and is cut, or falls behind and reads the log instead. One
/// that takes nothing for `maximumSilentBeats` beats is cut in either case.
final class EventInbox: Sendable {
    enum Delivery: Sendable, Equatable {
        /// At least one, in order.
        case events([LoggedEvent])
        /// A beat went by and there was nothing to write.
        case heartbeat
        /// The client closed its connection; nothing comes after it.
        case clientGone
        /// Nothing comes after it.
        case tooSlow
        /// Events were dropped: the reader goes on from the log and calls `catchUp` before it follows the job again.
        case behind
    }

    /// What becomes of a reader that lets too much pile up.
    enum Overflow: Sendable {
        case cut, fallBehind
    }

    private struct State {
        var events: [LoggedEvent] = []
        var size = 0
        /// `clientGone` or `tooSlow`.
        var end: Delivery?
        var isBehind = false
        var reader: CheckedContinuation<Delivery, Never>?
        /// Beats since the reader last came for something while something was there for it, or was being written.
        var silentBeats = 0
    }

    private let state = NIOLockedValueBox(State())
    private let maximumSize: Int
    private let maximumSilentBeats: Int
    private let overflow: Overflow
    private let onTooSlow: @Sendable () -> Void

    /// - Parameters:
    ///   - maximumSize: bytes.
    ///   - onTooSlow: closes the connection, without which a writer that hangs in a full socket would never learn of it.
    init(maximumSize: Int, maximumSilentBeats: Int = 4, overflow: Overflow = .cut, onTooSlow: @escaping @Sendable () -> Void) {
        self.maximumSize = maximumSize
        self.maximumSilentBeats = maximumSilentBeats
        self.overflow = overflow
        self.onTooSlow = onTooSlow
    }

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
            // One batch is always taken: how large it may be is the sender's to say, and the reader cannot be blamed for it.
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

    /// To be called regularly.
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

    /// The reader has read the log, and takes what is delivered from now on.
    func catchUp() {
        state.withLockedValue { state in
            state.isBehind = false
            state.events = []
            state.size = 0
        }
    }

    /// The reader wrote something that did not come from here.
    func readerMoved() { state.withLockedValue { $0.silentBeats = 0 } }

    func clientGone() {
        state.withLockedValue { state in
            guard state.end == nil else { return }
            state.end = .clientGone
            state.events = []
            state.reader?.resume(returning: .clientGone)
            state.reader = nil
        }
    }

    /// One reader at a time. Cancelling its task counts as the client's going.
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
    /// Bytes in memory, roughly: it bounds a buffer, it counts nothing.
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
