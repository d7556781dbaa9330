import NIOConcurrencyHelpers

/// Whether new clients should be sent here, and why not. Can be asked from any thread.
package final class Readiness: Sendable {
    private let isDrainingBox = NIOLockedValueBox(false)
    private let isRedisReachable: @Sendable () -> Bool
    private let isSubscriptionAlive: @Sendable () -> Bool

    package init(isRedisReachable: @escaping @Sendable () -> Bool, isSubscriptionAlive: @escaping @Sendable () -> Bool) {
        self.isRedisReachable = isRedisReachable
        self.isSubscriptionAlive = isSubscriptionAlive
    }

    /// Set once, at the begin of a drain.
    package var isDraining: Bool { isDrainingBox.withLockedValue { $0 } }
    package func startDraining() { isDrainingBox.withLockedValue { $0 = true } }

    /// Nil: ready.
    package var problem: String? {
        if isDraining { return "draining" }
        if !isRedisReachable() { return "Redis is out of reach" }
        if !isSubscriptionAlive() { return "the subscription to Redis is not alive" }
        return nil
    }
}
