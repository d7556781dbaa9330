/// The way of one pipeline through a cluster: which commands go to which node, and what a redirection or an error does. A state machine
/// without I/O: every method returns the actions to take, in order.
///
/// Only commands that were not executed are sent again. Commands of one slot keep their order as long as none of them is redirected.
struct ClusterRouting {
    enum Action: Equatable {
        /// Send the commands with these indices to a node, each after ASKING if asked so.
        case send([Int], to: ServerAddress, asking: Bool)
        /// Call `resume` after a wait, or earlier when the topology has changed.
        /// - attempt: number of earlier waits.
        case wait(attempt: Int)
        /// A node has named the owner of a slot.
        case move(Redirection)
        /// The known topology is wrong or incomplete.
        case refresh
        /// The result. No action follows it.
        case finish(Result<[RESPValue], RedisError>)
    }

    /// The state of one command. The comments list the successor states.
    private enum State: Equatable {
        /// → sent, failed
        case waiting
        /// → waiting, sent, answered, failed
        case sent
        case answered(RESPValue)
        /// No reply: not sent in time, or it is unknown whether the command was executed.
        case failed(RedisError)
    }

    /// Number of redirections that are followed without a wait: each may name a node whose own knowledge is older.
    static let promptRedirections = 5

    /// The slots of the commands; nil for one without a key.
    private let slots: [Int?]
    /// Whether the commands must not reach another node than the one for which the caller has checked the data, see
    /// `RedisClient.send(_:timeout:onConnection:completion:)`. A slot that is being moved from it is followed by ASK: its data is complete.
    private let isPinned: Bool
    private var states: [State]
    /// Commands without a reply or failure.
    private var open: Int
    private var redirections = 0
    private var waits = 0
    private var isWaiting = false
    /// The last reply that said that nothing was executed.
    private(set) var refusal: String?

    /// - Parameter slots: the slots of the commands, at least one command.
    init(slots: [Int?], isPinned: Bool) {
        self.slots = slots
        self.isPinned = isPinned
        states = Array(repeating: .waiting, count: slots.count)
        open = slots.count
    }

    /// Sends the commands that wait: at the beginning, after a wait and after a change of the topology.
    mutating func resume(_ topology: ClusterTopology) -> [Action] {
        isWaiting = false
        return route(states.indices.filter { states[$0] == .waiting }, topology)
    }

    /// Groups commands by the owners of their slots. A command without a key goes with the one before it, or with the first one with a key.
    private mutating func route(_ commands: [Int], _ topology: ClusterTopology) -> [Action] {
        var groups: [(address: ServerAddress, commands: [Int])] = []
        var isIncomplete = false
        for command in commands {
            guard let address = owner(of: command, topology) else {
                isIncomplete = true
                continue
            }
            states[command] = .sent
            if let index = groups.firstIndex(where: { $0.address == address }) {
                groups[index].commands.append(command)
            } else {
                groups.append((address, [command]))
            }
        }
        let actions = groups.map { Action.send($0.commands, to: $0.address, asking: false) }
        return isIncomplete ? actions + [.refresh] + wait() : actions
    }

    private func owner(of command: Int, _ topology: ClusterTopology) -> ServerAddress? {
        if let slot = slots[...command].last(where: { $0 != nil }) ?? slots[command...].first(where: { $0 != nil }) ?? nil {
            return topology.owner(of: slot)
        }
        return topology.shards.first?.primary
    }

    private mutating func wait() -> [Action] {
        guard !isWaiting else { return [] }
        isWaiting = true
        waits += 1
        return [.wait(attempt: waits - 1)]
    }

    /// Handles the replies to commands that were sent to one node, in their order.
    mutating func received(_ replies: [RESPValue], to commands: [Int], from address: ServerAddress) -> [Action] {
        var actions: [Action] = []
        var redirected: [(address: ServerAddress, isAsking: Bool, commands: [Int])] = []
        for (command, reply) in zip(commands, replies) {
            guard let unexecuted = UnexecutedReply(reply) else {
                settle(command, .answered(reply))
                continue
            }
            refusal = unexecuted.text
            let redirection = Redirection(unexecuted.text, from: address.host)
            if unexecuted.isMoved {
                if let redirection, !actions.contains(.move(redirection)) { actions.append(.move(redirection)) }
                if !actions.contains(.refresh) { actions.append(.refresh) }
            } else if unexecuted.concernsTopology, !actions.contains(.refresh) {
                actions.append(.refresh)
            }
            guard !isPinned || redirection != nil && !unexecuted.isMoved else {
                settle(command, .answered(reply))
                continue
            }
            guard let redirection, redirections < Self.promptRedirections else {
                states[command] = .waiting
                continue
            }
            let isAsking = !unexecuted.isMoved
            if let index = redirected.firstIndex(where: { $0.address == redirection.address && $0.isAsking == isAsking }) {
                redirected[index].commands.append(command)
            } else {
                redirected.append((redirection.address, isAsking, [command]))
            }
        }
        if !redirected.isEmpty { redirections += 1 }
        actions += redirected.map { .send($0.commands, to: $0.address, asking: $0.isAsking) }
        if commands.contains(where: { states[$0] == .waiting }) { actions += wait() }
        return actions + finishIfComplete()
    }

    /// Handles the failure of commands that were sent to one node.
    /// - Parameter isExpired: whether the deadline has passed.
    mutating func failed(_ error: RedisError, commands: [Int], isExpired: Bool) -> [Action] {
        // A request that is not executed may be sent to another node, unless the caller has bound it to this one.
        if error.code == .unavailable, !isExpired, !isPinned {
            for command in commands { states[command] = .waiting }
            return [.refresh] + wait()
        }
        for command in commands { settle(command, .failed(error)) }
        return finishIfComplete()
    }

    /// Fails the commands that wait, because their deadline has passed or the client is shut down.
    mutating func giveUp(_ error: RedisError) -> [Action] {
        for command in states.indices where states[command] == .waiting { settle(command, .failed(error)) }
        return finishIfComplete()
    }

    private mutating func settle(_ command: Int, _ state: State) {
        states[command] = state
        open -= 1
    }

    /// The result, once each command has a reply or has failed. If no command was answered, the pipeline fails. Otherwise the commands that
    /// failed get an error as their reply, so that the replies of the other shards are not lost.
    private func finishIfComplete() -> [Action] {
        guard open == 0 else { return [] }
        var replies: [RESPValue] = []
        var failure: RedisError?
        var isAnswered = false
        for state in states {
            switch state {
            case .answered(let reply):
                isAnswered = true
                replies.append(reply)
            case .failed(let error):
                failure = failure ?? error
                replies.append(.error("UNAVAILABLE \(error)"))
            case .waiting, .sent: return []
            }
        }
        if let failure, !isAnswered { return [.finish(.failure(failure))] }
        return [.finish(.success(replies))]
    }
}
