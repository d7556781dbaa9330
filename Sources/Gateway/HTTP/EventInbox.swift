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

    /// Bytes up to which an inbox does not count in its tenant's account, so that a reader that keeps up costs nothing.
    private static let uncountedSize = 4 << 10

    private struct State {
        var events: [LoggedEvent] = []
        var size = 0
        /// Bytes that the reader took last, which it may still be writing.
        var takenSize = 0
        /// Bytes that count in the tenant's account.
        var counted = 0
        /// `clientGone` or `tooSlow`.
        var end: Delivery?
        var isBehind = false
        var reader: CheckedContinuation<Delivery, Never>?
        /// Beats since the reader last came for something while something was there for it, or was being written.
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
    ///   - maximumSize: bytes.
    ///   - tenant: whose limit of unsent bytes counts beside `maximumSize`.
    ///   - onTooSlow: closes the connection, without which a writer that hangs in a full socket would never learn of it.
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
        state.withLockedValue { state in
            state.empty()
            state.takenSize = 0
            count(&state)
        }
    }

    /// Brings the tenant's account up to date.
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
            state.empty()
            count(&state)
            return true
        }
        if isOver { onTooSlow() }
    }

    /// The reader has read the log, and takes what is delivered from now on.
    func catchUp() {
        state.withLockedValue { state in
            state.isBehind = false
            state.empty()
            count(&state)
        }
    }

    /// The reader wrote something that did not come from here.
    func readerMoved() { state.withLockedValue { $0.silentBeats = 0 } }

    func clientGone() {
        state.withLockedValue { state in
            guard state.end == nil else { return }
            state.end = .clientGone
            state.empty()
            count(&state)
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
                    state.takenSize = 0
                    defer { count(&state) }
                    if let end = state.end {
                        continuation.resume(returning: end)
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
