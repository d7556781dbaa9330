/// A primary and its replicas: one shard of a cluster, or the only server of another deployment.
package struct RedisShard: Sendable, Hashable {
    /// `host:port`, or the URL of a Unix socket.
    package let primary: String
    /// The replicas that the cluster announces; empty for a single server.
    package let replicas: [String]
    /// The slots that it serves; empty for a single server.
    package let slots: [ClosedRange<Int>]
    /// Nil for a single server.
    let address: ServerAddress?

    /// Whether the shard serves a key. Always true for a single server.
    package func serves(_ key: String) -> Bool {
        guard address != nil else { return true }
        let slot = HashSlot.of(key)
        return slots.contains { $0.contains(slot) }
    }
}

extension ClusterTopology {
    /// The shards that serve slots, in the order of their first slots.
    var served: [RedisShard] {
        shards.indices.map { index in
            RedisShard(
                primary: shards[index].primary.description, replicas: shards[index].replicas.map(\.description), slots: slots(of: index),
                address: shards[index].primary)
        }
        .filter { !$0.slots.isEmpty }
        .sorted { ($0.slots.first?.lowerBound ?? 0) < ($1.slots.first?.lowerBound ?? 0) }
    }
}
