import DequeModule
import NIOConcurrencyHelpers
import NIOCore

/// The events of a channel as an asynchronous sequence for one reader.
///
/// When the reader is slower than the channel, the oldest events are dropped. The reader then receives `.lost` in their place, followed by
/// the remaining events.
package struct SubscriptionFeed: AsyncSequence, Sendable {
    package typealias Element = SubscriptionEvent
    package typealias Failure = Never

    package struct AsyncIterator: AsyncIteratorProtocol {
        fileprivate let buffer: FeedBuffer

        package mutating func next() async -> SubscriptionEvent? { await buffer.next() }
        package mutating func next(isolation actor: isolated (any Actor)?) async -> SubscriptionEvent? { await buffer.next() }
    }

    fileprivate let buffer: FeedBuffer

    package func makeAsyncIterator() -> AsyncIterator { AsyncIterator(buffer: buffer) }
}

extension RedisSubscriber {
    /// Subscribes to a channel while `body` runs, and unsubscribes afterwards. The feed ends when the task is cancelled.
    ///
    /// - Parameter bufferingAtMost: maximum number of buffered events, at least 1.
    package func withSubscription<Value>(
        _ channel: String, bufferingAtMost maximum: Int,
        _ body: (SubscriptionFeed) async throws -> Value
    ) async rethrows -> Value {
        let buffer = FeedBuffer(maximum: maximum)
        let token = newToken()
        subscribe(channel, token: token) { buffer.append($0) }
        defer { unsubscribe(channel, token: token) }
        return try await body(SubscriptionFeed(buffer: buffer))
    }
}

/// A bounded buffer between the event loop, which appends, and the reader's task. Protected by a lock.
private final class FeedBuffer: Sendable {
    private struct State {
        var events: Deque<SubscriptionEvent> = []
        /// Whether events were dropped since the reader last received `.lost`.
        var hasDropped = false
        var isCancelled = false
        var reader: CheckedContinuation<SubscriptionEvent?, Never>?
    }

    private let maximum: Int
    private let state = NIOLockedValueBox(State())

    init(maximum: Int) {
        self.maximum = Swift.max(1, maximum)
    }

    /// Resumes a waiting reader with the event, or buffers the event.
    func append(_ event: SubscriptionEvent) {
        let reader: CheckedContinuation<SubscriptionEvent?, Never>? = state.withLockedValue { state in
            if let reader = state.reader {
                state.reader = nil
                return reader
            }
            if state.events.count == maximum {
                state.events.removeFirst()
                state.hasDropped = true
            }
            state.events.append(event)
            return nil
        }
        reader?.resume(returning: event)
    }

    /// The next event; nil after cancellation, or when another reader is already waiting.
    func next() async -> SubscriptionEvent? {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let (isReady, event) = state.withLockedValue { state -> (Bool, SubscriptionEvent?) in
                    if state.isCancelled { return (true, nil) }
                    if state.hasDropped {
                        state.hasDropped = false
                        return (true, .lost)
                    }
                    if let event = state.events.popFirst() { return (true, event) }
                    if state.reader != nil { return (true, nil) }
                    state.reader = continuation
                    return (false, nil)
                }
                if isReady { continuation.resume(returning: event) }
            }
        } onCancel: {
            let reader = state.withLockedValue { state in
                state.isCancelled = true
                defer { state.reader = nil }
                return state.reader
            }
            reader?.resume(returning: nil)
        }
    }
}
