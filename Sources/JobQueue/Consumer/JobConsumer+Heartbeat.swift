import Contract
import NIOCore
import RedisClient

/// The entry of this worker in the list of workers.
extension JobConsumer {
    /// Number of leases for which a crashed worker's name stays in the list of workers.
    private static let retainedLeases = 4

    private var heartbeat: NodeHeartbeat { NodeHeartbeat(.worker, name: worker, keys: keys, lease: settings.lease) }

    /// Writes the heartbeat, which expires after a lease, lists this worker and removes stale workers from the list.
    /// - Returns: the error with which Redis rejects writes, nil when it accepts them; and the number of workers on the list, 1 to 100,000.
    package func writeHeartbeat(_ report: WorkerReport) async throws(QueueError) -> (rejection: QueueError?, workers: Int) {
        let arguments: [RedisArgument] = [.string(worker), .integer(Self.retainedLeases * settings.leaseMilliseconds)]
        var pipeline = redis.makePipeline()
        heartbeat.append(report.fields, to: &pipeline)
        pipeline.append(Scripts.listWorker, keys: [keys.workers], arguments: arguments)
        var replies = try await redis.send(pipeline)
        if replies.last?.isScriptMissing == true {
            var inFull = redis.makePipeline()
            inFull.append(Scripts.listWorker, keys: [keys.workers], arguments: arguments, isLoaded: false)
            replies += try await redis.send(inFull)
        }
        return (WriteHealth.rejection(in: replies), max(1, min(replies.last?.integer ?? 1, 100_000)))
    }

    /// Whether a worker has ended without a drain in the last leases.
    func hasLostWorker() async throws(QueueError) -> Bool {
        let reply = try await redis.send("TIME", nearKey: keys.workers)
        guard let time = reply.array, time.count == 2, let seconds = time[0].integer, (0...Int(Int32.max) * 2).contains(seconds) else {
            throw redis.misfit(reply, to: "TIME")
        }
        let oldest = seconds * 1_000 - settings.leaseMilliseconds
        return try await redis.send("ZCOUNT", .string(keys.workers), "-inf", .integer(oldest)).integer != 0
    }

    /// Removes the heartbeat, a drain request and this worker's place in the list. For a drained worker; without it the heartbeat expires.
    package func removeHeartbeat() async throws(QueueError) {
        var pipeline = RedisPipeline()
        pipeline.append("DEL", .string(heartbeat.key), .string(keys.drain(worker)))
        pipeline.append("ZREM", .string(keys.workers), .string(worker))
        _ = try await redis.send(pipeline)
    }
}
