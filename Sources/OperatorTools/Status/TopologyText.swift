import JobQueue

/// The Redis servers of a deployment as text for `sluice status`.
extension RedisTopology {
    package var text: String {
        var table = TextTable(header: ["REDIS", "STATE", "VERSION", "SLOTS", "PARTITIONS", "REPLICA", "LAG"])
        for shard in shards {
            let slots = shard.slots.map { $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound)-\($0.upperBound)" }.joined(separator: ",")
            let first = shard.replicas.first
            table.add([
                shard.primary, shard.isReachable ? shard.role == "master" ? "primary" : "replica" : "unreachable",
                shard.version.isEmpty ? "-" : shard.version, slots.isEmpty ? "-" : slots, String(shard.partitions.count),
                first?.address ?? "-", first.map(Self.lag) ?? "-",
            ])
            for replica in shard.replicas.dropFirst() { table.add(["", "", "", "", "", replica.address, Self.lag(replica)]) }
        }
        return table.text + (uncoveredSlots > 0 ? "slots that no server serves: \(uncoveredSlots)\n" : "")
    }

    private static func lag(_ replica: Replica) -> String { replica.state == "online" ? "\(replica.lagBytes) B" : replica.state }
}
