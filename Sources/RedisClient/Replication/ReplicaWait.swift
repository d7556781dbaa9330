import Logging
import Metrics
import NIOCore

/// Waits until replicas have received what was written, for `SLUICE_REDIS_WAIT_REPLICAS`.
///
/// WAIT blocks its connection, so it has one of its own. The replicas receive one stream of all connections' writes: a message that is published
/// here is behind them, and when replicas have acknowledged it they have everything before. Waits that begin while one is in flight share
/// the next one.
package final class ReplicaWait: Sendable {
    /// Maximum time of one wait.
    package static let maximum = TimeAmount.milliseconds(250)

    private let commands: RedisClient
    private let connection: RedisClient
    private let replicas: Int
    private let channel: String
    private let logger: Logger
    private let timeouts = Counter(label: "sluice_redis_replica_timeouts_total")
    private let state: NIOLoopBoundBox<State>

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
    package init?(url: RedisURL, settings: RedisSettings, channel: String, commands: RedisClient, logger: Logger) {
        guard settings.waitReplicas > 0 else { return nil }
        replicas = settings.waitReplicas
        self.commands = commands
        self.logger = logger
        self.channel = channel
        connection = RedisClient(url: url, settings: settings, eventLoop: commands.eventLoop, name: "replicas", logger: logger)
        state = .makeBoxSendingValue(State(), eventLoop: commands.eventLoop)
    }

    /// Keeps the connection open until `shutdown` is called or the task is cancelled.
    package func run() async { await connection.run() }

    package func shutdown() { connection.shutdown() }

    /// Returns when enough replicas have what Redis has executed before the call, or after 250 ms, which is counted.
    package func wait() async {
        await withCheckedContinuation { continuation in wait { continuation.resume() } }
    }

    /// The same without a task. `done` runs on the event loop, once.
    package func wait(_ done: @escaping @Sendable () -> Void) {
        if commands.eventLoop.inEventLoop { begin(done) } else { commands.eventLoop.execute { self.begin(done) } }
    }

    private func begin(_ done: @escaping @Sendable () -> Void) {
        let waiter = Waiter(done)
        waiter.timer = commands.eventLoop.assumeIsolated().scheduleTask(in: Self.maximum) { [weak self] in
            guard waiter.done != nil else { return }
            self?.timedOut()
            waiter.end()
        }
        state.value.waiting.append(waiter)
        ask()
    }

    /// Sends WAIT for all waits that have begun.
    private func ask() {
        guard !state.value.isAsking, !state.value.waiting.isEmpty else { return }
        let waiters = state.value.waiting
        state.value.waiting = []
        state.value.isAsking = true
        let server = commands.server
        var pipeline = RedisPipeline()
        // Since Redis 7.2 WAIT waits only for writes of its own connection. A message is allowed at the memory limit.
        pipeline.append("PUBLISH", .string(channel), "")
        pipeline.append("WAIT", .integer(replicas), .integer(Int(Self.maximum.nanoseconds / 1_000_000)))
        let box = NIOLoopBound(waiters, eventLoop: commands.eventLoop)
        connection.send(pipeline, timeout: .seconds(1)) { [self] result in
            state.value.isAsking = false
            // After a fail-over between the write and WAIT, both connections may have different servers.
            if case .success(let replies) = result, replies.count == 2, replies[1].integer ?? 0 >= replicas, connection.server == server,
                commands.server == server
            {
                if !box.value.isEmpty { acknowledged() }
                for waiter in box.value { waiter.end() }
            }
            // The others end by their timers.
            ask()
        }
    }

    private func acknowledged() {
        if state.value.isLate { logger.info("replicas of redis acknowledge writes again") }
        state.value.isLate = false
    }

    private func timedOut() {
        timeouts.increment()
        if !state.value.isLate {
            logger.warning(
                "replicas of redis do not acknowledge writes in time; a fail-over may lose them",
                metadata: ["replicas": "\(replicas)", "waited_ms": "\(Self.maximum.nanoseconds / 1_000_000)"])
        }
        state.value.isLate = true
    }
}
