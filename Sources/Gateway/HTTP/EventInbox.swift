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
        /// `nudge()` was called.
        case nudge
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

    /// Bytes up to which an inbox does not count in its tenant's account, so that a reader that keeps up costs nothing.
    private static let uncountedSize = 4 << 10

    private struct State {
        var events: [LoggedEvent] = []
        var size = 0
        /// Bytes that the reader took last, which it may still be writing.
        var takenSize = 0
        /// Bytes that count in the tenant's account.
        var counted = 0
        /// The final delivery, `clientGone` or `tooSlow`; nil while the inbox is open.
        var end: Delivery?
        var isBehind = false
        var isNudged = false
        var reader: CheckedContinuation<Delivery, Never>?
        /// Called when the reader has taken the events, or takes no more.
        var waiting: [@Sendable () -> Void] = []
        /// Heartbeats since the reader last called `next()`, counted while it is writing.
        var silentBeats = 0

        mutating func empty() {
            events = []
            size = 0
        }
    }

    private let state = NIOLockedValueBox(State())
    private let maximumSize: Int
    private let maximumSilentBeats: Int
    private let overflow: Overflow
    private let tenant: UnsentOutput.Tenant?
    private let onTooSlow: @Sendable () -> Void

    /// - Parameters:
    ///   - maximumSize: maximum size of the buffered events, in bytes.
    ///   - maximumSilentBeats: heartbeats without a call of `next()` after which the reader counts as too slow.
    ///   - tenant: the tenant whose limit of unsent bytes applies in addition to `maximumSize`.
    ///   - onTooSlow: must close the connection, because a writer blocked on a full socket does not call `next()`.
    init(
        maximumSize: Int, maximumSilentBeats: Int = 4, overflow: Overflow = .cut, tenant: UnsentOutput.Tenant? = nil,
        onTooSlow: @escaping @Sendable () -> Void
    ) {
        self.maximumSize = maximumSize
        self.maximumSilentBeats = maximumSilentBeats
        self.overflow = overflow
        self.tenant = tenant
        self.onTooSlow = onTooSlow
    }

    deinit {
        for body in state.withLockedValue({ $0.waiting }) { body() }
        state.withLockedValue { state in
            state.empty()
            state.takenSize = 0
            count(&state)
        }
    }

    /// Updates the tenant's count of unsent bytes.
    /// - Returns: whether the tenant is within its limit, or this inbox holds too little to matter.
    @discardableResult
    private func count(_ state: inout State) -> Bool {
        let held = state.size + state.takenSize
        let counted = held > Self.uncountedSize ? held : 0
        guard counted > 0 || state.counted > 0, let tenant else { return true }
        let fits = tenant.change(by: counted - state.counted)
        state.counted = counted
        return fits || counted == 0
    }

    /// Calls `body` once when no events are buffered: at once, or when the reader has taken them or takes no more.
    func whenTaken(_ body: @escaping @Sendable () -> Void) {
        let mustWait = state.withLockedValue { state in
            guard state.end == nil, !state.events.isEmpty else { return false }
            state.waiting.append(body)
            return true
        }
        if !mustWait { body() }
    }

    /// Calls those that wait for an empty buffer. Called without the lock after each change that may have emptied it.
    private func callWaiting() {
        let waiting = state.withLockedValue { state -> [@Sendable () -> Void] in
            guard state.events.isEmpty, !state.waiting.isEmpty else { return [] }
            defer { state.waiting = [] }
            return state.waiting
        }
        for body in waiting { body() }
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
                state.takenSize = size
                let fits = count(&state) || overflow == .fallBehind
                if !fits { state.end = .tooSlow }
                reader.resume(returning: fits ? .events(events) : .tooSlow)
                return !fits
            }
            // One batch is always taken: how large it may be is the sender's to say, and the reader cannot be blamed for it.
            let fits = state.events.isEmpty || state.size + size <= maximumSize
            if fits {
                state.events += events
                state.size += size
                if count(&state) { return false }
            }
            state.empty()
            count(&state)
            if overflow == .fallBehind {
                state.isBehind = true
                return false
            }
            state.end = .tooSlow
            return true
        }
        callWaiting()
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
            state.empty()
            count(&state)
            return true
        }
        callWaiting()
        if isOver { onTooSlow() }
    }

    /// Makes the waiting or the next call of `next()` return `nudge`.
    func nudge() {
        state.withLockedValue { state in
            guard state.end == nil else { return }
            guard let reader = state.reader else {
                state.isNudged = true
                return
            }
            state.reader = nil
            state.silentBeats = 0
            reader.resume(returning: .nudge)
        }
    }

    /// Ends the `behind` state: the reader has read the log up to now and accepts new events again.
    func catchUp() {
        state.withLockedValue { state in
            state.isBehind = false
            state.empty()
            count(&state)
        }
        callWaiting()
    }

    /// Resets the heartbeat count because the reader wrote something from another source.
    func readerMoved() { state.withLockedValue { $0.silentBeats = 0 } }

    /// Ends the inbox because the client disconnected, and discards buffered events.
    func clientGone() {
        state.withLockedValue { state in
            guard state.end == nil else { return }
            state.end = .clientGone
            state.empty()
            count(&state)
            state.reader?.resume(returning: .clientGone)
            state.reader = nil
        }
        callWaiting()
    }

    /// Waits for the next delivery. Only one task may wait at a time. Cancelling it has the effect of `clientGone()`.
    func next() async -> Delivery {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                state.withLockedValue { state in
                    state.silentBeats = 0
                    state.takenSize = 0
                    defer { count(&state) }
                    if let end = state.end {
                        continuation.resume(returning: end)
                    } else if state.isNudged {
                        state.isNudged = false
                        continuation.resume(returning: .nudge)
                    } else if state.isBehind {
                        continuation.resume(returning: .behind)
                    } else if !state.events.isEmpty {
                        let events = state.events
                        state.takenSize = state.size
                        state.empty()
                        continuation.resume(returning: .events(events))
                    } else {
                        state.reader = continuation
                    }
                }
                callWaiting()
            }
        } onCancel: {
            clientGone()
        }
    }
}
