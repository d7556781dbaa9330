import Logging
import NIOCore
import Synchronization

/// A connection for pub/sub subscriptions. It reconnects automatically and then restores all subscriptions.
///
/// For a cluster: one connection per primary, and the channels are sharded.
package final class RedisSubscriber: Sendable {
    private enum Core {
        case server(LoopBoundCore<SubscriptionCore>, SubscriptionCore.Status)
        case cluster(LoopBoundCore<ClusterSubscriptionCore>, ClusterSubscriptionCore.Status)
    }

    package let eventLoop: any EventLoop
    private let core: Core

    /// - Parameters:
    ///   - name: the name of the connection in logs, metrics and `CLIENT LIST`.
    ///   - cluster: the topology that the clients of one event loop share; nil to create one for a cluster's URL.
    package init(
        url: RedisURL, settings: RedisSettings, eventLoop: any EventLoop, name: String, logger: Logger, cluster: RedisCluster? = nil
    ) {
        self.eventLoop = eventLoop
        if let cluster = cluster ?? RedisCluster(url: url, settings: settings, eventLoop: eventLoop, logger: logger) {
            let status = ClusterSubscriptionCore.Status()
            let core = ClusterSubscriptionCore(
                url: url, settings: settings, eventLoop: eventLoop, name: name, logger: logger, cluster: cluster, status: status)
            self.core = .cluster(LoopBoundCore(core, eventLoop: eventLoop), status)
        } else {
            let status = SubscriptionCore.Status()
            let core = SubscriptionCore(url: url, settings: settings, eventLoop: eventLoop, name: name, logger: logger, status: status)
            self.core = .server(LoopBoundCore(core, eventLoop: eventLoop), status)
        }
    }

    /// Keeps a connection until the task is cancelled or `shutdown` is called.
    package func run() async {
        switch core {
        case .server(let core, _): await core.run()
        case .cluster(let core, _): await core.run()
        }
    }

    /// Closes the connection. Every handler receives a last `.lost`.
    package func shutdown() {
        switch core {
        case .server(let core, _): core.stop()
        case .cluster(let core, _): core.stop()
        }
    }

    /// Whether the connection is up, all subscriptions are restored and data was received within `RedisSettings.silence`; for a cluster,
    /// whether that holds for one node at least. Callable from any thread.
    ///
    /// A recent, unconfirmed subscription does not make it false. A missing confirmation is detected by PING, whose reply comes after it.
    package var isAlive: Bool {
        switch core {
        case .server(_, let status): NIODeadline.now().uptimeNanoseconds < status.aliveUntil.load(ordering: .acquiring)
        case .cluster(_, let status): status.isAlive(.now())
        }
    }

    /// Subscribes to a channel. Must be called on the event loop; `handler` runs there too.
    ///
    /// A channel has one handler: a new one replaces the old one, which is not called again. The handler receives `.subscribed` when the
    /// subscription is active, and no message before that.
    package func subscribe(_ channel: String, handler: @escaping @Sendable (SubscriptionEvent) -> Void) {
        switch core {
        case .server(let core, _): core.perform { $0.subscribe(channel, handler: handler) }
        case .cluster(let core, _): core.perform { $0.subscribe(channel, handler: handler) }
        }
    }

    /// Unsubscribes from a channel. Must be called on the event loop; the handler is not called after this method returns.
    package func unsubscribe(_ channel: String) {
        switch core {
        case .server(let core, _): core.perform { $0.unsubscribe(channel) }
        case .cluster(let core, _): core.perform { $0.unsubscribe(channel) }
        }
    }
}
