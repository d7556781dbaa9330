import Logging
import NIOCore
import Support

/// Uses the topology that a `TopologyKeeper` maintains. Called on the event loop.
protocol TopologyUser: AnyObject {
    /// Slots have other owners than before.
    func topologyChanged(from old: ClusterTopology)
    /// Whether a node that should serve slots is not reachable, so that a fail-over is expected.
    var expectsChange: Bool { get }
}

/// Keeps the topology of a cluster up to date by asking its nodes, one at a time in random order. Used only on its event loop.
///
/// It asks periodically, when a user requests it, and often while a node is not reachable or slots are not served.
final class TopologyKeeper {
    /// How long a node that does not answer is waited for.
    private static let patience = TimeAmount.seconds(1)
    /// Minimum interval between rounds of questions.
    private static let minimumInterval = TimeAmount.milliseconds(200)
    /// Intervals, with jitter between a half and the whole: while everything is well, and while a change is expected.
    private static let quietInterval = Duration.seconds(20)
    private static let changeInterval = Duration.seconds(1)
    /// Maximum bytes of a reply: 16,384 ranges of one slot each.
    private static let replyMaximum = 16 << 20

    private let url: RedisURL
    private let settings: RedisSettings
    private let eventLoop: any EventLoop
    private let logger: Logger

    private(set) var topology = ClusterTopology()
    private var users: [any TopologyUser] = []
    /// Diallers of the known nodes, because each reads the CA file once.
    private var diallers: [ServerAddress: Dialler] = [:]
    /// The nodes that were not asked yet in this round, the next one last.
    private var candidates: [ServerAddress] = []
    private var question: ServerQuestion<ClusterTopology>?
    private var timer: Scheduled<Void>?
    private var lastRound = NIODeadline.uptimeNanoseconds(0)
    /// A round was requested while one was running.
    private var isRequested = false
    private var outageLogged = false
    /// Number of the current question; distinguishes late answers.
    private var number = 0
    /// The last failure of this round.
    private var failure: RedisError?

    init(url: RedisURL, settings: RedisSettings, eventLoop: any EventLoop, logger: Logger) {
        self.url = url
        self.settings = settings
        self.eventLoop = eventLoop
        var logger = logger
        logger[metadataKey: "redis"] = "\(url)"
        self.logger = logger
    }

    /// Adds a user; the first one starts the questions.
    func add(_ user: any TopologyUser) {
        guard !users.contains(where: { $0 === user }) else { return }
        users.append(user)
        if users.count == 1 { refresh() }
    }

    /// Removes a user; the questions stop with the last one.
    func remove(_ user: any TopologyUser) {
        users.removeAll { $0 === user }
        guard users.isEmpty else { return }
        timer?.cancel()
        timer = nil
        question?.cancel()
        question = nil
    }

    /// Asks for the topology as soon as possible.
    func refresh() {
        guard !users.isEmpty else { return }
        guard question == nil else {
            isRequested = true
            return
        }
        schedule(at: max(.now(), lastRound + Self.minimumInterval))
    }

    /// Takes over what a node has said about one slot.
    func apply(_ redirection: Redirection) {
        let old = topology
        if topology.move(redirection.slot, to: redirection.address) { notify(old) }
    }

    private func notify(_ old: ClusterTopology) {
        for user in users { user.topologyChanged(from: old) }
    }

    private func schedule(at time: NIODeadline) {
        timer?.cancel()
        timer = eventLoop.assumeIsolated().scheduleTask(deadline: time) { [weak self] in self?.begin() }
    }

    // MARK: One round

    private func begin() {
        timer = nil
        isRequested = false
        failure = nil
        let known = topology.nodes
        // The last one is asked first. The nodes of the URL may belong to no cluster any more.
        candidates = url.seeds.filter { !known.contains($0) }.shuffled() + known.shuffled()
        let needed = Set(candidates)
        diallers = diallers.filter { needed.contains($0.key) }
        askNext()
    }

    private func askNext() {
        guard let address = candidates.popLast() else { return endWithoutAnswer() }
        let node = url.node(address)
        let dialler = diallers[address] ?? Dialler(url: node, settings: settings, eventLoop: eventLoop)
        diallers[address] = dialler
        number += 1
        let current = number
        let question = ServerQuestion<ClusterTopology>(
            node, ["CLUSTER", "SLOTS"], replyMaximum: Self.replyMaximum, dialler: dialler,
            parse: { reply throws(RedisError) in
                guard let topology = ClusterTopology(reply, from: address.host) else {
                    throw RedisError(.unavailable, "no slots are assigned to nodes")
                }
                return topology
            }
        ) { [weak self] result in
            guard let self, number == current else { return }
            answered(result)
        }
        self.question = question
        timer = eventLoop.assumeIsolated().scheduleTask(in: Self.patience) { [weak self] in
            guard let self, number == current else { return }
            self.question?.cancel()
            answered(.failure(RedisError(.timeout, "\(node): no answer within \(Self.patience.readable)")))
        }
        question.ask()
    }

    private func answered(_ result: Result<ClusterTopology, RedisError>) {
        number += 1
        timer?.cancel()
        timer = nil
        question = nil
        guard !users.isEmpty else { return }
        switch result {
        case .failure(let error):
            // A refusal, such as a wrong password, tells an operator more than an unreachable node.
            if failure == nil || failure?.code != .server { failure = error }
            askNext()
        case .success(let new):
            candidates = []
            if outageLogged { logger.info("redis cluster answers again") }
            outageLogged = false
            end()
            let old = topology
            guard new != old else { return }
            topology = new
            notify(old)
        }
    }

    private func endWithoutAnswer() {
        if !outageLogged {
            let reason = failure.map(\.message) ?? "no nodes"
            logger.warning("no node of the redis cluster answers CLUSTER SLOTS", metadata: ["reason": "\(reason)"])
        }
        outageLogged = true
        end()
    }

    /// Schedules the next round.
    private func end() {
        lastRound = .now()
        guard !isRequested || outageLogged else { return schedule(at: lastRound + Self.minimumInterval) }
        isRequested = false
        let isQuiet = !outageLogged && topology.uncovered == 0 && !users.contains { $0.expectsChange }
        let interval = isQuiet ? Self.quietInterval : Self.changeInterval
        schedule(at: lastRound + TimeAmount(interval * Double.random(in: 0.5...1)))
    }
}

/// The topology of a cluster, shared by the clients of one process on one event loop. It is kept up to date while a client uses it.
package final class RedisCluster: Sendable {
    private let box: NIOLoopBoundBox<TopologyKeeper>

    /// Nil for the URL of something else than a cluster.
    package init?(url: RedisURL, settings: RedisSettings, eventLoop: any EventLoop, logger: Logger) {
        guard url.isCluster else { return nil }
        box = .makeBoxSendingValue(
            TopologyKeeper(url: url, settings: settings, eventLoop: eventLoop, logger: logger), eventLoop: eventLoop)
    }

    /// Must be called on the event loop.
    var keeper: TopologyKeeper { box.value }
}
