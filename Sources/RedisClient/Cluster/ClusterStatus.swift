import Synchronization

/// The part of a cluster client's state that is read from any thread.
///
/// All connections to all nodes, and all changes of slot owners, are numbered in one sequence. The number of a slot changes when its node
/// has a new connection and when it has another node: the node may then hold older data.
final class ClusterStatus: Sendable {
    private struct State {
        var topology = ClusterTopology()
        /// The number of the last change of the slot's owner.
        var moves = [UInt32](repeating: 0, count: HashSlot.count)
        /// By the position of the shard in the topology: the number of the primary's last connection, and whether it is up.
        var shards: [(number: UInt32, isConnected: Bool)] = []
        var isConnected = false
    }

    private let state = Mutex(State())

    /// The current number of a slot; 0 before the first connection.
    func connections(of slot: Int) -> Int {
        state.withLock { state in
            guard let shard = state.topology.position(of: slot), state.shards.indices.contains(shard) else { return Int(state.moves[slot]) }
            return Int(max(state.moves[slot], state.shards[shard].number))
        }
    }

    /// Whether the node that serves a slot is connected.
    func isConnected(_ slot: Int) -> Bool {
        state.withLock { state in
            guard let shard = state.topology.position(of: slot), state.shards.indices.contains(shard) else { return false }
            return state.shards[shard].isConnected
        }
    }

    /// The address of the node that serves a slot.
    func server(of slot: Int) -> ServerAddress? { state.withLock { $0.topology.owner(of: slot) } }

    /// Whether any node is connected.
    var isConnected: Bool { state.withLock { $0.isConnected } }

    var topology: ClusterTopology { state.withLock { $0.topology } }

    func moved(_ slots: [Int], number: UInt32) {
        state.withLock { state in for slot in slots { state.moves[slot] = number } }
    }

    func publish(_ topology: ClusterTopology, nodes: [(address: ServerAddress, number: UInt32, isConnected: Bool)]) {
        var known: [ServerAddress: (UInt32, Bool)] = [:]
        for node in nodes {
            known[node.address] = (max(known[node.address]?.0 ?? 0, node.number), known[node.address]?.1 == true || node.isConnected)
        }
        let shards = topology.shards.map { known[$0.primary] ?? (0, false) }
        state.withLock { state in
            state.topology = topology
            state.shards = shards.map { (number: $0.0, isConnected: $0.1) }
            state.isConnected = nodes.contains(where: \.isConnected)
        }
    }
}
