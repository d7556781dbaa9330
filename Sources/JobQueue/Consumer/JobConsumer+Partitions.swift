import Contract
import RedisClient

/// Periodic work over all partitions, whose number of commands must not follow theirs while there is nothing to do: there may be 1,024.
extension JobConsumer {
    /// Above this number of partitions periodic work does not visit all of them each time.
    package static let visitedPartitions = 8
    /// Partitions that periodic work visits each time when there are more.
    private static let visitedAtOnce = 2
    /// Keys per command.
    private static let keysAtOnce = 2_048

    /// The reachable ones of some partitions with entries that have a lease, were returned, or are sorted by tenant.
    package func partitionsWithEntries(_ partitions: Set<Int>) async throws(QueueError) -> Set<Int> {
        Set(try await self.partitions(partitions.sorted(), withAny: { keys.leases(partition: $0) + keys.turns(partition: $0) }))
    }

    /// The partitions that a periodic look at the queues visits: all, or with many of them and without a lost worker a few at random. What such a
    /// look finds is rare without a lost worker.
    func partitionsToVisit() async throws(QueueError) -> [Int] {
        let all = 0..<keys.partitions
        guard all.count > Self.visitedPartitions, try await !hasLostWorker() else { return Array(all) }
        let first = Int.random(in: all)
        return (0..<Self.visitedAtOnce).map { (first + $0) % all.count }
    }

    /// The reachable ones of some partitions in which a key exists, in their order. A server is asked for many partitions at once.
    /// - Parameter names: the keys of a partition; as many for each.
    func partitions(_ partitions: [Int], withAny names: (Int) -> [String]) async throws(QueueError) -> [Int] {
        var candidates = partitions.filter { isReachable(partition: $0) }
        guard let first = candidates.first else { return [] }
        let size = max(1, Self.keysAtOnce / max(1, names(first).count))
        func chunks(_ partitions: [Int]) -> [[Int]] {
            stride(from: 0, to: partitions.count, by: size).map { Array(partitions[$0..<min($0 + size, partitions.count)]) }
        }
        if isCluster {
            let servers = Dictionary(grouping: candidates) { redis.server(for: keys.shard(partition: $0)) }
            let found = await partitionsOfCluster(servers.values.flatMap(chunks).map { $0.map { ($0, names($0)) } })
            return candidates.filter(found.contains)
        }
        let groups = chunks(candidates)
        let found = try await exists(groups.map { $0.flatMap(names) })
        candidates = zip(groups, found).filter(\.1).flatMap(\.0)
        let each = try await exists(candidates.map(names))
        return zip(candidates, each).filter(\.1).map(\.0)
    }

    /// The partitions in which a key exists, and those whose server does not answer: the caller finds out why.
    /// - Parameter groups: partitions of one server each, with their keys.
    private func partitionsOfCluster(_ groups: [[(partition: Int, keys: [String])]]) async -> Set<Int> {
        await withTaskGroup(of: [Int].self) { tasks in
            for group in groups {
                tasks.addTask(executorPreference: redis.executor) {
                    guard let first = group.first else { return [] }
                    let all = group.map(\.partition)
                    let reply = try? await redis.run(
                        Scripts.anyExists, keys: [keys.shard(partition: first.partition)],
                        arguments: [.integer(first.keys.count)] + group.flatMap(\.keys).map { .string($0) })
                    guard let numbers = reply?.array else { return all }
                    return numbers.compactMap { $0.integer.flatMap { Int(exactly: $0) } }.filter(all.indices.contains).map { all[$0] }
                }
            }
            return await tasks.reduce(into: []) { $0.formUnion($1) }
        }
    }

    /// For each list, whether one of its keys exists. True without an answer, so that the caller finds out why.
    private func exists(_ lists: [[String]]) async throws(QueueError) -> [Bool] {
        guard !lists.isEmpty else { return [] }
        var pipeline = RedisPipeline()
        for list in lists { pipeline.append(["EXISTS"] + list.map { .string($0) }) }
        return try await redis.send(pipeline).map { $0.integer != 0 }
    }
}
