import NIOConcurrencyHelpers
import Upstream

/// Passes reloaded upstream configurations to a running worker. Thread-safe.
package final class UpstreamsFeed: Sendable {
    private struct State {
        var handler: (@Sendable ([UpstreamConfiguration]) -> Void)?
        /// Replaced before `connect`; passed on then.
        var waiting: [UpstreamConfiguration]?
    }

    private let state = NIOLockedValueBox(State())

    /// Replaces the upstreams for jobs that start from now on. Callable on any thread.
    package func replace(_ upstreams: [UpstreamConfiguration]) {
        let handler = state.withLockedValue { state in
            if state.handler == nil { state.waiting = upstreams }
            return state.handler
        }
        handler?(upstreams)
    }

    /// Sets the handler of replacements. It is called on the thread of `replace`, or at once if a replacement is already waiting.
    func connect(_ handler: @escaping @Sendable ([UpstreamConfiguration]) -> Void) {
        let waiting = state.withLockedValue { state in
            state.handler = handler
            defer { state.waiting = nil }
            return state.waiting
        }
        if let waiting { handler(waiting) }
    }
}
