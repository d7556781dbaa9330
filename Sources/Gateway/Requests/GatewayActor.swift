import NIOCore
import RedisClient

extension EventLoop {
    /// Runs `body` on this loop after `delay`. Must be called on the loop.
    /// - Returns: the scheduled task, which the caller may cancel.
    func after(_ delay: Duration, _ body: @escaping () -> Void) -> Scheduled<Void> {
        let body = NIOLoopBound(body, eventLoop: self)
        return scheduleTask(in: TimeAmount(delay)) { body.value() }
    }
}

/// An actor on the gateway's event loop. Tasks that run here reach the sockets and Redis connections without a thread hop.
actor GatewayActor {
    private nonisolated let executor: LoopExecutor

    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    init(_ executor: LoopExecutor) { self.executor = executor }

    /// Starts a task that prefers the event loop as its executor.
    func begin(_ body: @escaping @Sendable (isolated GatewayActor) async -> Void) -> Task<Void, Never> {
        Task(executorPreference: executor) { await body(self) }
    }
}

extension GatewayContext {
    /// Runs `work` in a new task on the event loop, then calls `then` with its result. Must be called on the event loop. Meant for work per
    /// request, not per token.
    func await<Value: Sendable>(_ work: @escaping @Sendable () async -> Value, then: @escaping (Value) -> Void) {
        let then = NIOLoopBound(then, eventLoop: eventLoop)
        backgroundTasks.start(in: room) { _ in then.value(await work()) }
    }
}
