import Logging
import Metrics
import NIOCore

/// Waits until replicas have received what was written, for `SLUICE_REDIS_WAIT_REPLICAS`.
///
/// WAIT blocks its connection, so it has one of its own. The replicas receive one stream of all connections' writes: a message that is published
/// here is behind them, and when replicas have acknowledged it they have everything before. Waits that begin while one is in flight share
/// the next one.
///
/// A cluster does not replicate messages, and each shard has replicas of its own. There a key with a short expiry is written beside the data
/// that is waited for. At the memory limit it is not written, and the wait ends by its timeout.
package final class ReplicaWait: Sendable {
    /// Maximum time of one wait.
    package static let maximum = TimeAmount.milliseconds(250)

    private let commands: RedisClient
    private let connection: RedisClient
    private let replicas: Int
    private let channel: String
    private let logger: Logger
    private let timeouts = Counter(label: "sluice_redis_replica_timeouts_total")
    /// By key in a cluster; a single one for a server.
    private let states: NIOLoopBoundBox<[String: State]>
    /// Expiry of the keys, in milliseconds.
    private static let keyExpiry = 60_000

    private struct State {
        /// WAIT is in flight.
        var isAsking = false
        var waiting: [Waiter] = []
        /// The last wait was not acknowledged, which was logged.
        var isLate = false
    }

    /// One wait, which ends once. Used only on the event loop.
    private final class Waiter {
        var timer: Scheduled<Void>?
        var done: (@Sendable () -> Void)?

        init(_ done: @escaping @Sendable () -> Void) { self.done = done }

        func end() {
            timer?.cancel()
            done?()
            done = nil
        }
    }

    /// Nil when no replicas are waited for.
    /// - Parameters:
    ///   - settings: its `waitReplicas` is the number of replicas.
    ///   - channel: a channel without subscribers, to which the messages go.
    ///   - commands: the connection whose writes are waited for. The waiting has its event loop.
    ///   - cluster: the topology that `commands` uses.
    package init?(
        url: RedisURL, settings: RedisSettings, channel: String, commands: RedisClient, cluster: RedisCluster? = nil, logger: Logger
    ) {
        guard settings.waitReplicas > 0 else { return nil }
        replicas = settings.waitReplicas
        self.commands = commands
        self.logger = logger
        self.channel = channel
        connection = RedisClient(
            url: url, settings: settings, eventLoop: commands.eventLoop, name: "replicas", logger: logger, cluster: cluster)
        states = .makeBoxSendingValue([:], eventLoop: commands.eventLoop)
    }

    /// Keeps the connection open until `shutdown` is called or the task is cancelled.
    package func run() async { await connection.run() }

    package func shutdown() { connection.shutdown() }

    /// Returns when enough replicas have what Redis has executed before the call, or after 250 ms, which is counted.
    /// - Parameter key: a key that nothing else uses, beside the data that is waited for: `{…}` names its shard.
    package func wait(_ key: String) async {
        await withCheckedContinuation { continuation in wait(key) { continuation.resume() } }
    }

    /// The same without a task. `done` runs on the event loop, once.
    package func wait(_ key: String, _ done: @escaping @Sendable () -> Void) {
        let key = connection.isCluster ? key : ""
        if commands.eventLoop.inEventLoop { begin(key, done) } else { commands.eventLoop.execute { self.begin(key, done) } }
    }

    private func begin(_ key: String, _ done: @escaping @Sendable () -> Void) {
        let waiter = Waiter(done)
        waiter.timer = commands.eventLoop.assumeIsolated().scheduleTask(in: Self.maximum) { [weak self] in
            guard waiter.done != nil else { return }
            self?.timedOut(key)
            waiter.end()
        }
        states.value[key, default: State()].waiting.append(waiter)
        ask(key)
    }

    /// Sends WAIT for all waits that have begun.
    private func ask(_ key: String) {
        guard var state = states.value[key], !state.isAsking, !state.waiting.isEmpty else { return }
        let waiters = state.waiting
        state.waiting = []
        state.isAsking = true
        states.value[key] = state
        let server = commands.server(for: key)
        var pipeline = connection.makePipeline()
        // Since Redis 7.2 WAIT waits only for writes of its own connection. A message is allowed at the memory limit.
        if connection.isCluster {
            pipeline.append("SET", .string(key), "", "PX", .integer(Self.keyExpiry))
        } else {
            pipeline.append("PUBLISH", .string(channel), "")
        }
        pipeline.append("WAIT", .integer(replicas), .integer(Int(Self.maximum.nanoseconds / 1_000_000)))
        let box = NIOLoopBound(waiters, eventLoop: commands.eventLoop)
        connection.send(pipeline, timeout: .seconds(1)) { [self] result in
            states.value[key]?.isAsking = false
            // After a fail-over between the write and WAIT, both connections may have different servers.
            if case .success(let replies) = result, replies.count == 2, replies[0].errorText == nil, replies[1].integer ?? 0 >= replicas,
                connection.server(for: key) == server, commands.server(for: key) == server
            {
                if !box.value.isEmpty { acknowledged(key) }
                for waiter in box.value { waiter.end() }
            }
            // The others end by their timers.
            ask(key)
        }
    }

    private func acknowledged(_ key: String) {
        if states.value[key]?.isLate == true { logger.info("replicas of redis acknowledge writes again") }
        states.value[key]?.isLate = false
    }

    private func timedOut(_ key: String) {
        timeouts.increment()
        if states.value[key]?.isLate == false {
            logger.warning(
                "replicas of redis do not acknowledge writes in time; a fail-over may lose them",
                metadata: ["replicas": "\(replicas)", "waited_ms": "\(Self.maximum.nanoseconds / 1_000_000)"])
        }
        states.value[key]?.isLate = true
    }
}
