import Logging
import NIOCore
import Support
import Synchronization

/// The state of a `RedisSubscriber` of a cluster: sharded channels, each subscribed at the node that serves its slot. Used only on its event
/// loop.
final class ClusterSubscriptionCore: ConnectionCore, TopologyUser {
    /// The part of the state that is read from any thread.
    final class Status: Sendable {
        fileprivate let nodes = Mutex<[SubscriptionCore.Status]>([])

        /// Whether the subscriptions of at least one node are active. A shard that is not reachable concerns its own partitions alone.
        func isAlive(_ now: NIODeadline) -> Bool {
            nodes.withLock { $0.contains { now.uptimeNanoseconds < $0.aliveUntil.load(ordering: .acquiring) } }
        }
    }

    private final class Node {
        let status = SubscriptionCore.Status()
        var core: SubscriptionCore?
        var isUp = false
    }

    private struct Channel {
        let slot: Int
        let handler: SubscriptionTable.Handler
        /// The node at which it is subscribed; nil while none serves the slot.
        var node: ServerAddress?
    }

    private let url: RedisURL
    private let settings: RedisSettings
    private let eventLoop: any EventLoop
    private let name: String
    private let logger: Logger
    private let cluster: RedisCluster
    private let status: Status
    private var nodes: [ServerAddress: Node] = [:]
    private var channels: [String: Channel] = [:]
    private var waiters: [CheckedContinuation<Void, Never>] = []
    private var isStarted = false
    private var isStopped = false
    private var isRetryScheduled = false
    private var refusals = 0

    /// Interval before refused subscriptions are sent again; doubles from the lower to the upper bound.
    private static let retryInterval = (from: Duration.milliseconds(20), to: Duration.seconds(1))

    init(
        url: RedisURL, settings: RedisSettings, eventLoop: any EventLoop, name: String, logger: Logger, cluster: RedisCluster,
        status: Status
    ) {
        self.url = url
        self.settings = settings
        self.eventLoop = eventLoop
        self.name = name
        self.logger = logger
        self.cluster = cluster
        self.status = status
    }

    func run(_ waiter: CheckedContinuation<Void, Never>) {
        guard !isStopped else { return waiter.resume() }
        waiters.append(waiter)
        guard !isStarted else { return }
        isStarted = true
        cluster.keeper.add(self)
        topologyChanged(from: ClusterTopology())
    }

    func stop() {
        guard !isStopped else { return }
        isStopped = true
        cluster.keeper.remove(self)
        // Before the nodes' cores call the handlers.
        let unassigned = channels.values.filter { $0.node == nil }
        let nodes = nodes
        self.nodes = [:]
        channels = [:]
        for node in nodes.values { node.core?.stop() }
        for channel in unassigned { channel.handler(.lost) }
        publish()
        for waiter in waiters { waiter.resume() }
        waiters = []
    }

    func subscribe(_ channel: String, handler: @escaping SubscriptionTable.Handler) {
        guard !isStopped else { return handler(.lost) }
        let known = channels[channel]
        channels[channel] = Channel(slot: known?.slot ?? HashSlot.of(channel), handler: handler, node: known?.node)
        if let node = known?.node { nodes[node]?.core?.subscribe(channel, handler: handler) } else { route([channel]) }
    }

    func unsubscribe(_ channel: String) {
        guard let known = channels.removeValue(forKey: channel), let node = known.node else { return }
        nodes[node]?.core?.unsubscribe(channel)
    }

    /// Subscribes channels at the nodes that serve their slots now.
    private func route(_ names: [String]) {
        let topology = cluster.keeper.topology
        var isIncomplete = false
        for name in names {
            guard var channel = channels[name] else { continue }
            let owner = topology.owner(of: channel.slot)
            guard owner != channel.node else {
                isIncomplete = isIncomplete || owner == nil
                continue
            }
            if let old = channel.node {
                nodes[old]?.core?.unsubscribe(name)
                // Messages that are published meanwhile are missed, as after the loss of a connection.
                channel.handler(.lost)
            }
            channel.node = owner
            channels[name] = channel
            if let owner { node(owner).core?.subscribe(name, handler: channel.handler) } else { isIncomplete = true }
        }
        if isIncomplete { cluster.keeper.refresh() }
    }

    private func node(_ address: ServerAddress) -> Node {
        if let node = nodes[address] { return node }
        let node = Node()
        nodes[address] = node
        let core = SubscriptionCore(
            url: url.node(address), settings: settings, eventLoop: eventLoop, name: name, logger: logger, status: node.status,
            sharding: SubscriptionCore.Sharding(
                refused: { [unowned self] text in refused(text, by: address) },
                changed: { [unowned self, unowned node] isUp in
                    node.isUp = isUp
                    // A fail-over may follow.
                    if !isUp, !isStopped { cluster.keeper.refresh() }
                }))
        node.core = core
        core.start()
        publish()
        return node
    }

    /// Handles the refusal or the end of subscriptions at a node.
    private func refused(_ text: String?, by address: ServerAddress) {
        if let text, let unexecuted = UnexecutedReply(.error(text)), unexecuted.isMoved,
            let redirection = Redirection(text, from: address.host)
        {
            cluster.keeper.apply(redirection)
        }
        cluster.keeper.refresh()
        guard !isRetryScheduled else { return }
        isRetryScheduled = true
        refusals += 1
        let bound = Backoff.bound(from: Self.retryInterval.from, to: Self.retryInterval.to, attempt: refusals - 1)
        eventLoop.assumeIsolated().scheduleTask(in: TimeAmount(bound * Double.random(in: 0.5...1))) { [weak self] in
            guard let self else { return }
            isRetryScheduled = false
            for node in nodes.values { node.core?.subscribeAgain() }
        }
    }

    var expectsChange: Bool { nodes.values.contains { !$0.isUp } }

    func topologyChanged(from old: ClusterTopology) {
        let moved = Set(cluster.keeper.topology.changedSlots(from: old))
        refusals = 0
        // Also without channels, because a subscriber is alive when it is connected.
        for shard in cluster.keeper.topology.shards { _ = node(shard.primary) }
        // A channel without a node may have one now.
        route(channels.filter { moved.contains($0.value.slot) || $0.value.node == nil }.map(\.key))
        let used = Set(channels.values.compactMap(\.node)).union(cluster.keeper.topology.shards.map(\.primary))
        for (address, node) in nodes where !used.contains(address) {
            nodes[address] = nil
            node.core?.stop()
        }
        publish()
    }

    private func publish() {
        let all = nodes.values.map(\.status)
        status.nodes.withLock { $0 = all }
    }
}
