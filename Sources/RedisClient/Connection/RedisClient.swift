import Logging
import NIOCore
import Synchronization

/// A Redis client with one connection that reconnects automatically. Use separate instances for commands and for blocking reads.
///
/// Methods are callable from any thread; completions and callbacks run on the event loop.
package final class RedisClient: Sendable {
    package let eventLoop: any EventLoop
    /// An executor on `eventLoop`, for actors that use this client and for their tasks.
    package let executor: LoopExecutor
    private let settings: RedisSettings
    private let status = CommandCore.Status()
    private let core: LoopBoundCore<CommandCore>

    /// - Parameter name: the name of the connection in logs, metrics and `CLIENT LIST`.
    package init(url: RedisURL, settings: RedisSettings, eventLoop: any EventLoop, name: String, logger: Logger) {
        self.eventLoop = eventLoop
        executor = LoopExecutor(eventLoop)
        self.settings = settings
        core = LoopBoundCore(
            CommandCore(url: url, settings: settings, eventLoop: eventLoop, name: name, logger: logger, status: status),
            eventLoop: eventLoop)
    }

    /// Keeps a connection until the task is cancelled or `shutdown` is called.
    package func run() async { await core.run() }

    /// Closes the connection. Waiting commands, commands in flight and later commands fail with `.shutdown`.
    package func shutdown() { core.stop() }

    /// Number of connections so far, with the current one. A changed number means that the server may be another one, or may have lost data.
    package var connections: Int { status.connections.load(ordering: .acquiring) }

    /// `host:port` of the server of the last connection, which changes with a fail-over; nil for a Unix socket and before a connection.
    package var server: String? { status.server.withLock { $0?.description } }

    package var isConnected: Bool { status.isConnected.load(ordering: .acquiring) }

    /// Sends one command and waits for its reply. Cancelling the task does not end the wait; the timeout does.
    /// - Parameter timeout: nil for `RedisSettings.commandTimeout`.
    /// - Throws: `.server` for an error reply; other codes as described in `RedisError.Code`.
    package func send(_ arguments: [RedisArgument], timeout: TimeAmount? = nil) async throws(RedisError) -> RESPValue {
        var pipeline = RedisPipeline()
        pipeline.append(arguments)
        return try await (send(pipeline, timeout: timeout).first ?? .null).orThrow()
    }

    /// Sends one command, as `send(_:timeout:)` with an array does.
    package func send(_ arguments: RedisArgument..., timeout: TimeAmount? = nil) async throws(RedisError) -> RESPValue {
        try await send(arguments, timeout: timeout)
    }

    /// Sends a pipeline with one write. Error replies are elements `.error` of the result and are not thrown.
    package func send(_ pipeline: RedisPipeline, timeout: TimeAmount? = nil) async throws(RedisError) -> [RESPValue] {
        let result = await withCheckedContinuation { continuation in
            send(pipeline, timeout: timeout) { continuation.resume(returning: $0) }
        }
        return try result.get()
    }

    /// Sends a pipeline without a task. `completion` runs on the event loop, exactly once; if nothing can be sent and the caller is on the
    /// event loop, it runs before this method returns.
    /// - Parameter connection: the number of the only connection on which to send, see `connections`; the pipeline fails with `connectionLost`
    ///   if there is another one. Nil for any.
    package func send(
        _ pipeline: RedisPipeline, timeout: TimeAmount? = nil, onConnection connection: Int? = nil,
        completion: @escaping @Sendable (Result<[RESPValue], RedisError>) -> Void
    ) {
        let deadline = NIODeadline.now() + (timeout ?? settings.commandTimeout)
        // Not always by `perform`: this form allocates no closure on the event loop.
        if eventLoop.inEventLoop {
            core.onLoop.send(pipeline, deadline: deadline, connection: connection, completion: completion)
        } else {
            core.perform { $0.send(pipeline, deadline: deadline, connection: connection, completion: completion) }
        }
    }

    /// Runs a script by EVALSHA, and after NOSCRIPT by EVAL, which also loads it. `timeout` covers both commands.
    /// - Throws: as `send(_:timeout:)`.
    package func run(
        _ script: RedisScript, keys: [String], arguments: [RedisArgument], timeout: TimeAmount? = nil
    ) async throws(RedisError) -> RESPValue {
        let result = await withCheckedContinuation { continuation in
            run(script, keys: keys, arguments: arguments, timeout: timeout) { continuation.resume(returning: $0) }
        }
        return try result.get()
    }

    /// Runs a script without a task, as the asynchronous `run` does. The EVALSHA is sent in call order. `completion` is called as the one of
    /// `send(_:timeout:completion:)`.
    package func run(
        _ script: RedisScript, keys: [String], arguments: [RedisArgument], timeout: TimeAmount? = nil,
        completion: @escaping @Sendable (Result<RESPValue, RedisError>) -> Void
    ) {
        let timeout = timeout ?? settings.commandTimeout
        let deadline = NIODeadline.now() + timeout
        var pipeline = RedisPipeline()
        pipeline.append(script, keys: keys, arguments: arguments)
        send(pipeline, timeout: timeout) { [self] result in
            guard case .success(let replies) = result, replies.first?.isScriptMissing == true else { return completion(Self.one(result)) }
            var pipeline = RedisPipeline()
            pipeline.append(script, keys: keys, arguments: arguments, isLoaded: false)
            send(pipeline, timeout: deadline - .now()) { completion(Self.one($0)) }
        }
    }

    /// Makes an error for a reply that does not match its command, and closes the connection, because later replies may be mismatched too.
    /// - Parameter command: the command's name for the message, for example "the claim script". The message contains only the shape of the
    ///   reply, because the reply may contain prompts.
    package func misfit(_ reply: RESPValue, to command: String) -> RedisError {
        let error = RedisError(.protocolViolation, "\(command) was answered by \(reply.shape)")
        core.perform { $0.distrust(error) }
        return error
    }

    /// Registers a callback that runs on the event loop after each later connect or reconnect.
    package func onConnect(_ body: @escaping @Sendable () -> Void) {
        core.perform { $0.add(onConnect: body) }
    }

    /// The reply to a pipeline of one command; an error reply is a failure.
    private static func one(_ result: Result<[RESPValue], RedisError>) -> Result<RESPValue, RedisError> {
        result.flatMap { replies in Result { () throws(RedisError) in try (replies.first ?? .null).orThrow() } }
    }
}
