import Logging
import NIOCore
import Support
import Synchronization

/// The state of a `RedisClient` of a cluster: one `CommandCore` per node, and the pipelines on their way. Used only on its event loop.
///
/// A node's connections are opened when the first command is routed to it.
final class ClusterCore: ConnectionCore, TopologyUser {
    typealias Completion = CommandCore.Completion

    /// A connection: one per node, or one per slot.
    private struct Lane: Hashable {
        let address: ServerAddress
        let slot: Int?
    }

    private final class Node {
        let address: ServerAddress
        let status = CommandCore.Status()
        var core: CommandCore?
        /// The number of its current or last connection, see `ClusterStatus`; 0 before the first.
        var number: UInt32 = 0

        init(_ address: ServerAddress) { self.address = address }
    }

    /// One pipeline on its way.
    private final class Request {
        let bytes: [UInt8]
        let commands: [CommandSlots.Command]
        let deadline: NIODeadline
        /// The number of the only connection on which to send; nil for any.
        let connection: Int?
        let completion: Completion
        var routing: ClusterRouting

        init(
            _ pipeline: RedisPipeline, _ commands: [CommandSlots.Command], deadline: NIODeadline, connection: Int?,
            completion: @escaping Completion
        ) {
            bytes = pipeline.bytes
            self.commands = commands
            self.deadline = deadline
            self.connection = connection
            self.completion = completion
            let near = pipeline.nearKey.map { HashSlot.of($0) }
            routing = ClusterRouting(slots: commands.map { $0.slot ?? near }, isPinned: connection != nil)
        }

        /// Some of the commands, each after ASKING if asked so.
        func pipeline(of indices: [Int], asking: Bool) -> RedisPipeline {
            if !asking, indices.count == commands.count { return RedisPipeline(bytes: bytes, count: commands.count) }
            var part = RedisPipeline(isSharded: true)
            for index in indices {
                if asking { part.append("ASKING") }
                part.append(contentsOf: RedisPipeline(bytes: bytes[commands[index].bytes], count: 1))
            }
            return part
        }
    }

    private let url: RedisURL
    private let settings: RedisSettings
    private let eventLoop: any EventLoop
    private let name: String
    private let logger: Logger
    private let cluster: RedisCluster
    private let status: ClusterStatus
    /// Whether each slot has a connection of its own, for blocking commands.
    private let isolatesSlots: Bool
    private let alarm: Alarm

    private var nodes: [Lane: Node] = [:]
    private var greeting = RedisPipeline()
    private var onConnect: [@Sendable () -> Void] = []
    private var waiters: [CheckedContinuation<Void, Never>] = []
    private var isStarted = false
    private var isStopped = false
    /// Number of pipelines without a result, and their bytes.
    private var open = 0
    private var openBytes = 0
    /// Pipelines with commands that are sent later, oldest first.
    private var delayed: [Request] = []
    private var isRetryScheduled = false
    /// Number of connections so far.
    private var connections: UInt32 = 0

    /// Interval before commands that were not executed are sent again; doubles from the lower to the upper bound.
    private static let retryInterval = (from: Duration.milliseconds(20), to: Duration.milliseconds(500))

    init(
        url: RedisURL, settings: RedisSettings, eventLoop: any EventLoop, name: String, logger: Logger, cluster: RedisCluster,
        status: ClusterStatus, isolatesSlots: Bool
    ) {
        self.url = url
        self.settings = settings
        self.eventLoop = eventLoop
        self.name = name
        self.logger = logger
        self.cluster = cluster
        self.status = status
        self.isolatesSlots = isolatesSlots
        alarm = Alarm(eventLoop: eventLoop)
        alarm.ring = { [unowned self] now in expire(now) }
    }

    func run(_ waiter: CheckedContinuation<Void, Never>) {
        guard !isStopped else { return waiter.resume() }
        waiters.append(waiter)
        guard !isStarted else { return }
        isStarted = true
        cluster.keeper.add(self)
        let topology = cluster.keeper.topology
        if !topology.shards.isEmpty { topologyChanged(from: ClusterTopology()) }
    }

    func stop() {
        guard !isStopped else { return }
        isStopped = true
        alarm.cancel()
        cluster.keeper.remove(self)
        let nodes = nodes
        self.nodes = [:]
        for node in nodes.values { node.core?.stop() }
        let waiting = delayed
        delayed = []
        for request in waiting { perform(request.routing.giveUp(RedisError(.shutdown, "the Redis client is shut down")), request) }
        for waiter in waiters { waiter.resume() }
        waiters = []
        onConnect = []
        publish()
    }

    /// See `CommandCore.add(onConnect:)`. Called also when slots have other owners.
    func add(onConnect body: @escaping @Sendable () -> Void) { onConnect.append(body) }

    /// Adds commands that are sent first on each later connection to a node.
    func greet(with commands: RedisPipeline) {
        greeting.append(contentsOf: commands)
        for node in nodes.values { node.core?.greet(with: commands) }
    }

    /// Ends all connections after a reply that does not match its command.
    func distrust(_ reason: RedisError) { for node in nodes.values { node.core?.distrust(reason) } }

    // MARK: Commands

    func send(_ pipeline: RedisPipeline, deadline: NIODeadline, connection: Int? = nil, completion: @escaping Completion) {
        guard !isStopped else { return completion(.failure(RedisError(.shutdown, "the Redis client is shut down"))) }
        guard pipeline.count > 0 else { return completion(.success([])) }
        let commands = CommandSlots(pipeline).commands
        guard pipeline.argumentsMissing == 0, commands.count == pipeline.count else {
            return completion(.failure(RedisError(.protocolViolation, "a command has fewer or more arguments than declared")))
        }
        let bytes = pipeline.bytes.count
        guard open < settings.inFlightMaximum, open == 0 || openBytes + bytes <= settings.bytesMaximum else {
            return completion(
                .failure(
                    RedisError(
                        .overloaded,
                        "too many unanswered commands to \(url): the limit is \(settings.inFlightMaximum) commands or "
                            + "\(settings.bytesMaximum) bytes")))
        }
        if let connection, !commands.allSatisfy({ $0.slot.map { number(of: $0) == connection } ?? true }) {
            return completion(.failure(RedisError(.connectionLost, "the connection to \(url) has changed; the commands were not sent")))
        }
        let request = Request(pipeline, commands, deadline: deadline, connection: connection, completion: completion)
        open += 1
        openBytes += bytes
        perform(request.routing.resume(cluster.keeper.topology), request)
    }

    /// Sends commands to a primary, without following redirections.
    func send(_ pipeline: RedisPipeline, to address: ServerAddress, deadline: NIODeadline, completion: @escaping Completion) {
        guard !isStopped, let core = node(Lane(address: address, slot: nil)).core else {
            return completion(.failure(RedisError(.shutdown, "the Redis client is shut down")))
        }
        core.send(pipeline, deadline: deadline, completion: completion)
    }

    private func perform(_ actions: [ClusterRouting.Action], _ request: Request) {
        for action in actions {
            switch action {
            case .send(let indices, let address, let asking): send(indices, of: request, to: address, asking: asking)
            case .wait(let attempt): delay(request, attempt)
            case .move(let redirection): cluster.keeper.apply(redirection)
            case .refresh: cluster.keeper.refresh()
            case .finish(let result):
                open -= 1
                openBytes -= request.bytes.count
                request.completion(result)
            }
        }
    }

    private func send(_ indices: [Int], of request: Request, to address: ServerAddress, asking: Bool) {
        guard !isStopped else {
            let error = RedisError(.shutdown, "the Redis client is shut down")
            return perform(request.routing.failed(error, commands: indices, isExpired: true), request)
        }
        let node = node(Lane(address: address, slot: isolatesSlots ? request.commands[indices[0]].slot : nil))
        guard let core = node.core else { return }
        // The number of the slot was compared before, so the current connection of the node is the right one.
        let connection = request.connection == nil || asking ? nil : node.status.connections.load(ordering: .relaxed)
        let bound = NIOLoopBound((core: self, request: request), eventLoop: eventLoop)
        core.send(request.pipeline(of: indices, asking: asking), deadline: request.deadline, connection: connection) { result in
            let (owner, request) = bound.value
            owner.received(result, to: indices, of: request, from: address, asking: asking)
        }
    }

    private func received(
        _ result: Result<[RESPValue], RedisError>, to indices: [Int], of request: Request, from address: ServerAddress, asking: Bool
    ) {
        switch result {
        case .success(let replies):
            // Every second reply belongs to ASKING.
            let own = asking ? stride(from: 1, to: replies.count, by: 2).map { replies[$0] } : replies
            perform(request.routing.received(own, to: indices, from: address), request)
        case .failure(let error):
            perform(request.routing.failed(error, commands: indices, isExpired: request.deadline <= .now()), request)
        }
    }

    // MARK: Commands that wait

    private func delay(_ request: Request, _ attempt: Int) {
        guard request.deadline > .now() else { return perform(request.routing.giveUp(notExecuted(request)), request) }
        delayed.append(request)
        alarm.set(request.deadline)
        guard !isRetryScheduled else { return }
        isRetryScheduled = true
        let bound = Backoff.bound(from: Self.retryInterval.from, to: Self.retryInterval.to, attempt: attempt)
        eventLoop.assumeIsolated().scheduleTask(in: TimeAmount(bound * Double.random(in: 0.5...1))) { [weak self] in
            guard let self else { return }
            isRetryScheduled = false
            retry()
        }
    }

    private func retry() {
        let requests = delayed
        delayed = []
        for request in requests { perform(request.routing.resume(cluster.keeper.topology), request) }
    }

    private func expire(_ now: NIODeadline) {
        let expired = delayed.filter { $0.deadline <= now }
        delayed.removeAll { $0.deadline <= now }
        for request in expired { perform(request.routing.giveUp(notExecuted(request)), request) }
        if let next = delayed.map(\.deadline).min() { alarm.set(next) }
    }

    private func notExecuted(_ request: Request) -> RedisError {
        let refusal = request.routing.refusal
        return RedisError(
            .unavailable,
            "not executed by \(url) within the command's deadline: \(refusal ?? "no node serves the slot, or it is not reachable")",
            refusal: refusal)
    }

    // MARK: Nodes

    private func node(_ lane: Lane) -> Node {
        if let node = nodes[lane] { return node }
        let node = Node(lane.address)
        nodes[lane] = node
        let core = CommandCore(
            url: url.node(lane.address), settings: settings, eventLoop: eventLoop, name: name, logger: logger, status: node.status,
            isRouted: true
        ) { [unowned self, unowned node] isUp in nodeChanged(node, isUp: isUp) }
        node.core = core
        core.greet(with: greeting)
        core.start()
        return node
    }

    private func nodeChanged(_ node: Node, isUp: Bool) {
        if isUp {
            connections &+= 1
            node.number = connections
        }
        if isUp {
            publish()
            for body in onConnect { body() }
        } else {
            removeUnneeded()
            publish()
            // A fail-over may follow.
            cluster.keeper.refresh()
        }
    }

    /// Closes the connections that no slot needs when nothing is in flight on them; a later command opens one again.
    private func removeUnneeded() {
        for (lane, node) in unneeded() where node.core?.isIdle == true {
            nodes[lane] = nil
            node.core?.stop()
        }
    }

    /// The connections to nodes without slots, and those of single slots that other nodes serve.
    private func unneeded() -> [Lane: Node] {
        let topology = cluster.keeper.topology
        let owners = Set(topology.shards.map(\.primary))
        return nodes.filter { lane, _ in
            lane.slot.map { topology.owner(of: $0) != lane.address } ?? !owners.contains(lane.address)
        }
    }

    var expectsChange: Bool {
        let owners = Set(cluster.keeper.topology.shards.map(\.primary))
        return nodes.contains { owners.contains($0.key.address) && !$0.value.status.isConnected.load(ordering: .relaxed) }
    }

    func topologyChanged(from old: ClusterTopology) {
        let topology = cluster.keeper.topology
        let moved = topology.changedSlots(from: old)
        if !moved.isEmpty {
            connections &+= 1
            status.moved(moved, number: connections)
        }
        for node in nodes.values { node.core?.releaseWaiting() }
        if isolatesSlots {
            // A blocking read would otherwise wait at the former server until its timeout.
            let moved = RedisError(.connectionLost, "another node serves the slot")
            for node in unneeded().values { node.core?.distrust(moved) }
        }
        removeUnneeded()
        if !isolatesSlots, isStarted { for shard in topology.shards { _ = node(Lane(address: shard.primary, slot: nil)) } }
        publish()
        retry()
        if !moved.isEmpty { for body in onConnect { body() } }
    }

    /// Makes the state of the nodes visible to other threads.
    private func publish() {
        status.publish(
            cluster.keeper.topology,
            nodes: nodes.values.map { ($0.address, $0.number, $0.status.isConnected.load(ordering: .relaxed)) })
    }

    private func number(of slot: Int) -> Int { status.connections(of: slot) }
}
