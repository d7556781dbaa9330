import Logging
import NIOCore
import Synchronization

/// One connection that carries commands, connects and reconnects by itself. Use separate instances for commands and for blocking reads.
package final class RedisClient: Sendable {
    package let eventLoop: any EventLoop
    /// `eventLoop` for actors that ask Redis, and for their tasks.
    package let executor: LoopExecutor
    private let settings: RedisSettings
    private let status = CommandCore.Status()
    private let core: NIOLoopBoundBox<CommandCore>

    /// - Parameter name: for logs, metrics and `CLIENT LIST`.
    package init(url: RedisURL, settings: RedisSettings, eventLoop: any EventLoop, name: String, logger: Logger) {
        self.eventLoop = eventLoop
        executor = LoopExecutor(eventLoop)
        self.settings = settings
        let core = CommandCore(url: url, settings: settings, eventLoop: eventLoop, name: name, logger: logger, status: status)
        self.core = .makeBoxSendingValue(core, eventLoop: eventLoop)
    }

    deinit {
        // Sockets and timers refer to the core: without this a forgotten client would reconnect for ever. One that was shut down may
        // outlive its event loop.
        guard !status.isStopped.load(ordering: .acquiring) else { return }
        eventLoop.execute { [core] in core.value.stop() }
    }

    /// Keeps a connection until the task is cancelled or `shutdown` is called.
    package func run() async {
        await withTaskCancellationHandler {
            await withCheckedContinuation { waiter in
                eventLoop.execute { self.core.value.run(waiter) }
            }
        } onCancel: {
            shutdown()
        }
    }

    /// Closes the connection; everything that waits or is in flight fails with `.shutdown`, and so does what is sent later.
    package func shutdown() {
        onLoop { $0.stop() }
    }

    package var isConnected: Bool { status.isConnected.load(ordering: .acquiring) }

    /// Error replies of the server are thrown as `.server`. Cancelling the task does not end the wait: the deadline does.
    package func send(_ arguments: [RedisArgument], timeout: TimeAmount? = nil) async throws(RedisError) -> RESPValue {
        var pipeline = RedisPipeline()
        pipeline.append(arguments)
        return try await one(pipeline, timeout: timeout).orThrow()
    }

    package func send(_ arguments: RedisArgument..., timeout: TimeAmount? = nil) async throws(RedisError) -> RESPValue {
        try await send(arguments, timeout: timeout)
    }

    /// One write; error replies stand in the array as `.error`.
    package func send(_ pipeline: RedisPipeline, timeout: TimeAmount? = nil) async throws(RedisError) -> [RESPValue] {
        let result = await withCheckedContinuation { continuation in
            send(pipeline, timeout: timeout) { continuation.resume(returning: $0) }
        }
        return try result.get()
    }

    /// The same without a task: `completion` runs on the event loop, exactly once; when nothing can be sent, before this returns (if called
    /// on the loop).
    package func send(
        _ pipeline: RedisPipeline, timeout: TimeAmount? = nil, completion: @escaping @Sendable (Result<[RESPValue], RedisError>) -> Void
    ) {
        let deadline = NIODeadline.now() + (timeout ?? settings.commandTimeout)
        // Written out, not by `onLoop`: on the loop this allocates no closure.
        if eventLoop.inEventLoop {
            core.value.send(pipeline, deadline: deadline, completion: completion)
        } else {
            eventLoop.execute { [core] in core.value.send(pipeline, deadline: deadline, completion: completion) }
        }
    }

    /// EVALSHA, and EVAL on NOSCRIPT (which loads it). Both within one `timeout`.
    package func run(
        _ script: RedisScript, keys: [String], arguments: [RedisArgument], timeout: TimeAmount? = nil
    ) async throws(RedisError) -> RESPValue {
        let timeout = timeout ?? settings.commandTimeout
        let deadline = NIODeadline.now() + timeout
        var pipeline = RedisPipeline()
        pipeline.append(script, keys: keys, arguments: arguments)
        let reply = try await one(pipeline, timeout: timeout)
        guard case .error(let text) = reply, text.hasPrefix("NOSCRIPT") else { return try reply.orThrow() }
        pipeline = RedisPipeline()
        pipeline.append(by: "EVAL", script.source, keys: keys, arguments: arguments)
        return try await one(pipeline, timeout: deadline - .now()).orThrow()
    }

    /// An error for a reply that the command cannot have given. The connection is thrown away: the replies behind it may belong to other
    /// commands than they seem to.
    /// - Parameter command: for the message, as "the claim script". The reply itself may hold prompts, so only its shape is told.
    package func misfit(_ reply: RESPValue, to command: String) -> RedisError {
        let error = RedisError(.protocolViolation, "\(command) was answered by \(reply.shape)")
        onLoop { $0.distrust(error) }
        return error
    }

    /// Called on the event loop after each (re)connect that follows this call.
    package func onConnect(_ body: @escaping @Sendable () -> Void) {
        onLoop { $0.add(onConnect: body) }
    }

    private func one(_ pipeline: RedisPipeline, timeout: TimeAmount?) async throws(RedisError) -> RESPValue {
        try await send(pipeline, timeout: timeout).first ?? .null
    }

    /// At once when on the loop, else with one hop.
    private func onLoop(_ body: @escaping @Sendable (CommandCore) -> Void) {
        if eventLoop.inEventLoop {
            body(core.value)
        } else {
            eventLoop.execute { [core] in body(core.value) }
        }
    }
}
