import NIOCore
import RedisClient

extension Duration {
    var milliseconds: Int { Int(components.seconds) * 1000 + Int(components.attoseconds / 1_000_000_000_000_000) }
}

extension EventLoop {
    /// `body` on this loop after a while; cancel the result when it is no longer wanted.
    func after(_ delay: Duration, _ body: @escaping () -> Void) -> Scheduled<Void> {
        let body = NIOLoopBound(body, eventLoop: self)
        return scheduleTask(in: .milliseconds(Int64(delay.milliseconds))) { body.value() }
    }
}

/// Where the gateway's tasks run: on its event loop, beside the sockets and the connections to Redis, so that asking Redis costs no change
/// of thread.
actor LoopRoom {
    private nonisolated let executor: LoopExecutor

    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    init(_ executor: LoopExecutor) { self.executor = executor }

    func begin(_ body: @escaping @Sendable (isolated LoopRoom) async -> Void) -> Task<Void, Never> {
        Task(executorPreference: executor) { await body(self) }
    }
}

extension GatewayContext {
    /// Runs `work` in a task of its own, on the event loop, where this is called and where `then` gets what it gave. For what happens once
    /// a request, not once a token.
    func await<Value: Sendable>(_ work: @escaping @Sendable () async -> Value, then: @escaping (Value) -> Void) {
        let then = NIOLoopBound(then, eventLoop: eventLoop)
        errands.start(in: room) { _ in then.value(await work()) }
    }
}
