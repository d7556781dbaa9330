import NIOCore

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

extension GatewayContext {
    /// Runs `work` in a task of its own and comes back to the event loop, where this is called, with what it gave. For what happens once a request, not once a token.
    func await<Value: Sendable>(_ work: @escaping @Sendable () async -> Value, then: @escaping (Value) -> Void) {
        let then = NIOLoopBound(then, eventLoop: eventLoop)
        let eventLoop = eventLoop
        errands.start {
            let value = await work()
            eventLoop.execute { then.value(value) }
        }
    }
}
