import Contract
import Logging
import NIOCore
import RedisClient

/// The Redis connections of a gateway: one for commands, one for bulk reads of logs, one for subscriptions, and one to wait for replicas if
/// the settings ask for that. In a cluster each of them is one connection per shard.
///
/// All are on one event loop, so that events and replies are handled on the thread of the clients' sockets. They reconnect by themselves.
package struct ProducerConnections: Sendable {
    package typealias ServerURL = RedisURL
    package typealias ServerSettings = RedisSettings

    package let producer: JobProducer
    /// Follows jobs by the connection for subscriptions.
    package let feed: EventFeed
    private let subscriber: RedisSubscriber
    private let replicas: ReplicaWait?

    /// Creates the connections; `run` opens them.
    package init(url: ServerURL, settings: ServerSettings, queue: QueueSettings, eventLoop: any EventLoop, logger: Logger) {
        let cluster = RedisCluster(url: url, settings: settings, eventLoop: eventLoop, logger: logger)
        let commands = RedisClient(url: url, settings: settings, eventLoop: eventLoop, name: "commands", logger: logger, cluster: cluster)
        commands.loadAtConnect(Scripts.ofGateway)
        let logs = RedisClient(url: url, settings: settings, eventLoop: eventLoop, name: "logs", logger: logger, cluster: cluster)
        subscriber = RedisSubscriber(url: url, settings: settings, eventLoop: eventLoop, name: "events", logger: logger, cluster: cluster)
        let replicas = ReplicaWait(
            url: url, settings: settings, channel: queue.keys.replicated, commands: commands, cluster: cluster, logger: logger)
        self.replicas = replicas
        producer = JobProducer(redis: commands, logs: logs, settings: queue, replicas: replicas)
        let feed = EventFeed(queue: producer, subscriber: subscriber, eventLoop: eventLoop, logger: logger)
        self.feed = feed
        // In a task of the feed, which must have ended before the event loop, too.
        commands.onConnect { [weak feed] in
            feed?.assumeIsolated { feed in
                feed.start { feed in
                    for id in await feed.queue.repeatInterrupts() {
                        feed.logger.notice("interrupt sent again, because Redis had lost it", metadata: ["job": "\(id)"])
                    }
                }
            }
        }
    }

    /// Whether the connection for commands is up. Callable from any thread.
    package var isConnected: Bool { producer.redis.isConnected }

    /// Whether the subscriptions are active; see `RedisSubscriber.isAlive`. Callable from any thread.
    package var isSubscriptionAlive: Bool { subscriber.isAlive }

    /// Time for the feed's tasks to end after the connections.
    private static let feedAllowance = Duration.seconds(1)

    /// Keeps the connections open until `shutdown` is called or the task is cancelled. Afterwards nothing uses the event loop.
    package func run() async {
        async let commands: Void = producer.redis.run()
        async let logs: Void = producer.logs.run()
        async let subscriptions: Void = subscriber.run()
        async let replication: Void? = replicas?.run()
        _ = await (commands, logs, subscriptions, replication)
        await feed.end(within: Self.feedAllowance)
    }

    /// Closes the connections. Later commands fail.
    package func shutdown() {
        producer.redis.shutdown()
        producer.logs.shutdown()
        subscriber.shutdown()
        replicas?.shutdown()
    }
}
