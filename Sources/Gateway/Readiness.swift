import NIOConcurrencyHelpers

/// The readiness of a gateway for new clients, with the reason when it is not ready. Thread-safe.
package final class Readiness: Sendable {
    private let isDrainingBox = NIOLockedValueBox(false)
    private let isRedisReachable: @Sendable () -> Bool
    private let isSubscriptionAlive: @Sendable () -> Bool

    package init(isRedisReachable: @escaping @Sendable () -> Bool, isSubscriptionAlive: @escaping @Sendable () -> Bool) {
        self.isRedisReachable = isRedisReachable
        self.isSubscriptionAlive = isSubscriptionAlive
    }

    /// True from the start of a drain; never reset.
    package var isDraining: Bool { isDrainingBox.withLockedValue { $0 } }
    package func startDraining() { isDrainingBox.withLockedValue { $0 = true } }

    /// The reason why the gateway is not ready; nil when it is.
    package var problem: String? {
        if isDraining { return "draining" }
        if !isRedisReachable() { return "Redis is not reachable" }
        if !isSubscriptionAlive() { return "the subscription to Redis is not alive" }
        return nil
    }
}
