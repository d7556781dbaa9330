import Logging
import NIOCore
import Synchronization

/// A Redis client with one connection that reconnects automatically, or with one connection per primary of a cluster. Use separate instances
/// for commands and for blocking reads.
///
/// Methods are callable from any thread; completions and callbacks run on the event loop.
package final class RedisClient: Sendable {
    /// Chosen once, so that commands to a single server pass through no other layer.
    private enum Core {
        case server(LoopBoundCore<CommandCore>, CommandCore.Status)
        case cluster(LoopBoundCore<ClusterCore>, ClusterStatus)
    }

    package let eventLoop: any EventLoop
    /// An executor on `eventLoop`, for actors that use this client and for their tasks.
    package let executor: LoopExecutor
    private let url: RedisURL
    private let settings: RedisSettings
    private let core: Core

    /// - Parameters:
    ///   - name: the name of the connection in logs, metrics and `CLIENT LIST`.
    ///   - cluster: the topology that the clients of one event loop share; nil to create one for a cluster's URL.
    ///   - isolatesSlots: whether each slot of a cluster has a connection of its own, for blocking commands.
    package init(
        url: RedisURL, settings: RedisSettings, eventLoop: any EventLoop, name: String, logger: Logger, cluster: RedisCluster? = nil,
        isolatesSlots: Bool = false
    ) {
        self.eventLoop = eventLoop
        executor = LoopExecutor(eventLoop)
        self.url = url
        self.settings = settings
        if let cluster = cluster ?? RedisCluster(url: url, settings: settings, eventLoop: eventLoop, logger: logger) {
            let status = ClusterStatus()
            let core = ClusterCore(
                url: url, settings: settings, eventLoop: eventLoop, name: name, logger: logger, cluster: cluster, status: status,
                isolatesSlots: isolatesSlots)
            self.core = .cluster(LoopBoundCore(core, eventLoop: eventLoop), status)
        } else {
            let status = CommandCore.Status()
            let core = CommandCore(url: url, settings: settings, eventLoop: eventLoop, name: name, logger: logger, status: status)
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

    /// Closes the connection. Waiting commands, commands in flight and later commands fail with `.shutdown`.
    package func shutdown() {
        switch core {
        case .server(let core, _): core.stop()
        case .cluster(let core, _): core.stop()
        }
    }

    /// Whether the client is one of a cluster.
    package var isCluster: Bool { if case .cluster = core { true } else { false } }

    /// When work with a period is due again after `time`: with the checks of the connections, if the period allows that, see `CheckTimes`.
    package func due(_ period: TimeAmount, after time: NIODeadline) -> NIODeadline {
        CheckTimes(silence: settings.silence).due(period, after: time)
    }

    /// An empty pipeline for this client.
    package func makePipeline() -> RedisPipeline { RedisPipeline(isSharded: isCluster) }

    /// Number of connections so far, with the current one, to the server that serves a key; a number of the same use for a cluster. A changed
    /// number means that the server may be another one, or may have lost data.
    package func connections(for key: @autoclosure () -> String) -> Int {
        switch core {
        case .server(_, let status): status.connections.load(ordering: .acquiring)
        case .cluster(_, let status): status.connections(of: HashSlot.of(key()))
        }
    }

    /// `host:port` of the last connection's server, or of the node that serves a key; it changes with a fail-over. Nil for a Unix socket and
    /// before a connection.
    package func server(for key: @autoclosure () -> String) -> String? {
        switch core {
        case .server(_, let status): status.server.withLock { $0?.description }
        case .cluster(_, let status): status.server(of: HashSlot.of(key()))?.description
        }
    }

    /// Whether the connection is up, or one node of the cluster is connected.
    package var isConnected: Bool {
        switch core {
        case .server(_, let status): status.isConnected.load(ordering: .acquiring)
        case .cluster(_, let status): status.isConnected
        }
    }

    /// Whether commands for a key can be sent now. Always true for a single server, where all keys share one connection.
    package func isReachable(_ key: @autoclosure () -> String) -> Bool {
        switch core {
        case .server: true
        case .cluster(_, let status): status.isConnected(HashSlot.of(key()))
        }
    }

    /// The shards that are known now; for a single server one, whose address is known after the first connection.
    package var shards: [RedisShard] {
        switch core {
        case .server(_, let status):
            [RedisShard(primary: status.server.withLock { $0?.description } ?? "\(url)", replicas: [], slots: [], address: nil)]
        case .cluster(_, let status): status.topology.served
        }
    }

    /// Sends one command to the primary of a shard, without following redirections.
    /// - Throws: as `send(_:timeout:)`.
    package func send(_ arguments: RedisArgument..., to shard: RedisShard, timeout: TimeAmount? = nil) async throws(RedisError) -> RESPValue
    {
        guard case .cluster(let core, _) = core, let address = shard.address else { return try await send(arguments, timeout: timeout) }
        var pipeline = makePipeline()
        pipeline.append(arguments)
        let deadline = NIODeadline.now() + (timeout ?? settings.commandTimeout)
        let result: Result<[RESPValue], RedisError> = await withCheckedContinuation { continuation in
            core.perform { [pipeline] in $0.send(pipeline, to: address, deadline: deadline) { continuation.resume(returning: $0) } }
        }
        return try (result.get().first ?? .null).orThrow()
    }

    /// Number of slots that no node serves; 0 for a single server.
    package var uncoveredSlots: Int {
        switch core {
        case .server: 0
        case .cluster(_, let status): status.topology.uncovered
        }
    }

    /// Sends one command and waits for its reply. Cancelling the task does not end the wait; the timeout does.
    /// - Parameters:
    ///   - nearKey: see `RedisPipeline.nearKey`.
    ///   - timeout: nil for `RedisSettings.commandTimeout`.
    /// - Throws: `.server` for an error reply; other codes as described in `RedisError.Code`.
    package func send(
        _ arguments: [RedisArgument], nearKey: String? = nil, timeout: TimeAmount? = nil
    ) async throws(RedisError) -> RESPValue {
        var pipeline = makePipeline()
        pipeline.append(arguments)
        pipeline.nearKey = nearKey
        return try await (send(pipeline, timeout: timeout).first ?? .null).orThrow()
    }

    /// Sends one command, as `send(_:timeout:)` with an array does.
    package func send(
        _ arguments: RedisArgument..., nearKey: String? = nil, timeout: TimeAmount? = nil
    ) async throws(RedisError) -> RESPValue {
        try await send(arguments, nearKey: nearKey, timeout: timeout)
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
        switch core {
        case .server(let core, _) where eventLoop.inEventLoop:
            core.onLoop.send(pipeline, deadline: deadline, connection: connection, completion: completion)
        case .server(let core, _):
            core.perform { $0.send(pipeline, deadline: deadline, connection: connection, completion: completion) }
        case .cluster(let core, _):
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
        var pipeline = makePipeline()
        pipeline.append(script, keys: keys, arguments: arguments)
        send(pipeline, timeout: timeout) { [self] result in
            guard case .success(let replies) = result, replies.first?.isScriptMissing == true else { return completion(Self.one(result)) }
            var pipeline = makePipeline()
            pipeline.append(script, keys: keys, arguments: arguments, isLoaded: false)
            send(pipeline, timeout: deadline - .now()) { completion(Self.one($0)) }
        }
    }

    /// Makes an error for a reply that does not match its command, and closes the connection, because later replies may be mismatched too.
    /// - Parameter command: the command's name for the message, for example "the claim script". The message contains only the shape of the
    ///   reply, because the reply may contain prompts.
    package func misfit(_ reply: RESPValue, to command: String) -> RedisError {
        let error = RedisError(.protocolViolation, "\(command) was answered by \(reply.shape)")
        switch core {
        case .server(let core, _): core.perform { $0.distrust(error) }
        case .cluster(let core, _): core.perform { $0.distrust(error) }
        }
        return error
    }

    /// Registers a callback that runs on the event loop after each later connect or reconnect; for a cluster, to any node, and after slots
    /// have moved to other nodes.
    package func onConnect(_ body: @escaping @Sendable () -> Void) {
        switch core {
        case .server(let core, _): core.perform { $0.add(onConnect: body) }
        case .cluster(let core, _): core.perform { $0.add(onConnect: body) }
        }
    }

    /// Loads scripts at the beginning of each later connection, so that no hot path receives NOSCRIPT. An optimization only: a script that is
    /// not loaded is sent in full when it is called.
    package func loadAtConnect(_ scripts: [RedisScript]) {
        var load = makePipeline()
        for script in scripts { load.append("SCRIPT", "LOAD", .string(isCluster ? script.shardedSource : script.source)) }
        switch core {
        case .server(let core, _): core.perform { [load] in $0.greet(with: load) }
        case .cluster(let core, _): core.perform { [load] in $0.greet(with: load) }
        }
    }

    /// The reply to a pipeline of one command; an error reply is a failure.
    private static func one(_ result: Result<[RESPValue], RedisError>) -> Result<RESPValue, RedisError> {
        result.flatMap { replies in Result { () throws(RedisError) in try (replies.first ?? .null).orThrow() } }
    }
}
