import Contract
import JSONCodec
import RedisClient

/// The jobs that have a record, newest first.
package struct JobList: Sendable {
    /// One job.
    package struct Item: Sendable {
        /// The id as it is in the key; any text.
        package let id: String
        package let record: JobRecord

        package var json: JSON { JobStory.json(id: id, record: record) }
        /// Milliseconds since 1970; 0: unknown.
        package var submittedMilliseconds: Int { record.count("submitted_ms") ?? 0 }
    }

    package var jobs: [Item] = []
    /// Whether more jobs may exist.
    package var isCut = false
}

extension JobProducer {
    /// Reads the records of all partitions with SCAN. The number of commands grows with the number of keys in Redis.
    /// - Parameters:
    ///   - state: only jobs in this state; nil for all.
    ///   - limit: maximum number of jobs.
    package func jobs(state: JobState?, limit: Int) async throws(RedisError) -> JobList {
        var list = JobList()
        for partition in 0..<keys.partitions {
            // With a state filter, the number of keys to read is unknown in advance.
            let prefix = keys.recordPrefix(partition: partition)
            let (found, isCut) = try await scan(prefix, limit: state == nil ? max(limit, 10_000) : 100_000)
            list.isCut = list.isCut || isCut
            for start in stride(from: 0, to: found.count, by: 500) {
                let page = found[start..<min(start + 500, found.count)]
                var pipeline = RedisPipeline()
                for key in page { pipeline.append("HGETALL", .string(key)) }
                for (key, reply) in zip(page, try await redis.send(pipeline)) {
                    guard let record = JobRecord(reply), let current = record.state, state == nil || current == state else { continue }
                    list.jobs.append(JobList.Item(id: String(key.dropFirst(prefix.count)), record: record))
                }
            }
        }
        list.jobs.sort { ($0.submittedMilliseconds, $0.id) > ($1.submittedMilliseconds, $1.id) }
        list.isCut = list.isCut || list.jobs.count > limit
        list.jobs = Array(list.jobs.prefix(limit))
        return list
    }

    /// Finds keys by prefix with at most 2,000 SCAN commands, on the server that has them.
    /// - Returns: the sorted keys, and whether more may exist. There may be more keys than `limit`.
    private func scan(_ prefix: String, limit: Int) async throws(RedisError) -> (keys: [String], isCut: Bool) {
        var found: Set<String> = []
        var cursor = "0"
        for _ in 0..<2_000 {
            let reply = try await redis.send(
                "SCAN", .string(cursor), "MATCH", .string(prefix + "*"), "COUNT", 1_000, nearKey: prefix)
            guard let parts = reply.array, parts.count == 2, let next = parts[0].string else { break }
            for key in parts[1].array ?? [] {
                if let key = key.string { found.insert(key) }
            }
            if next == "0" { return (found.sorted(), false) }
            if found.count >= limit { break }
            cursor = next
        }
        return (found.sorted(), true)
    }
}
