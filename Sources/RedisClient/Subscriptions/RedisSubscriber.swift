import Logging
import NIOCore
import Synchronization

/// A connection for pub/sub subscriptions. It reconnects automatically and then restores all subscriptions.
package final class RedisSubscriber: Sendable {
    package let eventLoop: any EventLoop
    private let status = SubscriptionCore.Status()
    private let core: LoopBoundCore<SubscriptionCore>

    /// - Parameter name: the name of the connection in logs, metrics and `CLIENT LIST`.
    package init(url: RedisURL, settings: RedisSettings, eventLoop: any EventLoop, name: String, logger: Logger) {
        self.eventLoop = eventLoop
        core = LoopBoundCore(
            SubscriptionCore(url: url, settings: settings, eventLoop: eventLoop, name: name, logger: logger, status: status),
            eventLoop: eventLoop)
    }

    /// Keeps a connection until the task is cancelled or `shutdown` is called.
    package func run() async { await core.run() }

    /// Closes the connection. Every handler receives a last `.lost`.
    package func shutdown() { core.stop() }

    /// Whether the connection is up, all subscriptions are restored and data was received within `RedisSettings.silence`. Callable from any
    /// thread.
    ///
    /// A recent, unconfirmed subscription does not make it false. A missing confirmation is detected by PING, whose reply comes after it.
    package var isAlive: Bool {
        NIODeadline.now().uptimeNanoseconds < status.aliveUntil.load(ordering: .acquiring)
    }

    /// Subscribes to a channel. Must be called on the event loop; `handler` runs there too.
    ///
    /// A channel has one handler: a new one replaces the old one, which is not called again. The handler receives `.subscribed` when the
    /// subscription is active, and no message before that.
    package func subscribe(_ channel: String, handler: @escaping @Sendable (SubscriptionEvent) -> Void) {
        core.perform { $0.subscribe(channel, handler: handler) }
    }

    /// Unsubscribes from a channel. Must be called on the event loop; the handler is not called after this method returns.
    package func unsubscribe(_ channel: String) {
        core.perform { $0.unsubscribe(channel) }
    }
}
