import Contract
import Logging
import NIOCore
import RedisClient

/// The Redis connections of a worker: one for commands, one for blocking reads, one for bulk reads of logs, one for subscriptions, and one
/// to wait for replicas if the settings ask for that. In a cluster each of them is one connection per shard, and the blocking reads have one
/// per partition, because a command reads one slot.
///
/// All are on one event loop, so a claim's reply and an interrupt that overtakes it are handled on the same thread. Connections reconnect by
/// themselves and log that once.
package struct ConsumerConnections: Sendable {
    package typealias ServerURL = RedisURL
    package typealias ServerSettings = RedisSettings

    let commands: RedisClient
    let blocking: RedisClient
    let logs: RedisClient
    let subscriber: RedisSubscriber
    /// Nil when no replicas are waited for.
    let replicas: ReplicaWait?

    /// Creates the connections; `run` opens them.
    package init(url: ServerURL, settings: ServerSettings, keys: Keys, eventLoop: any EventLoop, logger: Logger) {
        let cluster = RedisCluster(url: url, settings: settings, eventLoop: eventLoop, logger: logger)
        let commands = RedisClient(url: url, settings: settings, eventLoop: eventLoop, name: "commands", logger: logger, cluster: cluster)
        self.commands = commands
        blocking = RedisClient(
            url: url, settings: settings, eventLoop: eventLoop, name: "claims", logger: logger, cluster: cluster, isolatesSlots: true)
        logs = RedisClient(url: url, settings: settings, eventLoop: eventLoop, name: "logs", logger: logger, cluster: cluster)
        subscriber = RedisSubscriber(url: url, settings: settings, eventLoop: eventLoop, name: "cancel", logger: logger, cluster: cluster)
        replicas = ReplicaWait(
            url: url, settings: settings, channel: keys.replicated, commands: commands, cluster: cluster, logger: logger)
        commands.loadAtConnect(Scripts.ofWorker)
    }

    /// Why the worker cannot work at the moment, for its readiness; nil when all connections are up. Callable from any thread.
    package var fault: String? {
        // In a cluster the connections for blocking reads are opened by the first reads.
        if !commands.isConnected || !blocking.isConnected && !blocking.isCluster { return "Redis is not reachable" }
        if !subscriber.isAlive { return "the cancel subscription is not alive" }
        return nil
    }

    /// Keeps the connections until `shutdown` is called or the task is cancelled.
    package func run() async {
        await withDiscardingTaskGroup { tasks in
            tasks.addTask { await commands.run() }
            tasks.addTask { await blocking.run() }
            tasks.addTask { await logs.run() }
            tasks.addTask { await subscriber.run() }
            if let replicas { tasks.addTask { await replicas.run() } }
        }
    }

    /// Closes the connections. Commands without a reply and later ones fail with `shutdown`.
    package func shutdown() {
        commands.shutdown()
        blocking.shutdown()
        logs.shutdown()
        subscriber.shutdown()
        replicas?.shutdown()
    }
}
