import NIOConcurrencyHelpers
import Upstream

/// Brings other upstreams to a worker that runs.
package final class UpstreamsFeed: Sendable {
    private struct State {
        var taker: (@Sendable ([UpstreamConfiguration]) -> Void)?
        /// Came before there was anybody to take them.
        var waiting: [UpstreamConfiguration]?
    }

    private let state = NIOLockedValueBox(State())

    /// Any thread. Jobs that begin from now on go to these.
    package func replace(_ upstreams: [UpstreamConfiguration]) {
        let taker = state.withLockedValue { state in
            if state.taker == nil { state.waiting = upstreams }
            return state.taker
        }
        taker?(upstreams)
    }

    func connect(_ taker: @escaping @Sendable ([UpstreamConfiguration]) -> Void) {
        let waiting = state.withLockedValue { state in
            state.taker = taker
            defer { state.waiting = nil }
            return state.waiting
        }
        if let waiting { taker(waiting) }
    }
}
