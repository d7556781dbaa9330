import Contract
import RedisClient
import Support

/// A webhook whose delivery is due.
package struct DueWebhook: Sendable, Equatable {
    package var job: JobID
    /// `response.completed`, `response.incomplete`, `response.cancelled` or `response.failed`.
    package var type: String
    package var owner: String
    /// When the response ended, seconds since 1970.
    package var created: Int
    /// The number of this attempt, from 1.
    package var attempt: Int

    package init(job: JobID, type: String, owner: String, created: Int, attempt: Int) {
        self.job = job
        self.type = type
        self.owner = owner
        self.created = created
        self.attempt = attempt
    }
}

/// The result of a webhook's delivery.
package enum WebhookResult: Sendable, Equatable {
    case delivered
    /// - Parameter after: until the next attempt.
    case failed(String, after: Duration)
    /// The last attempt failed.
    case dead(String)
}

/// Webhooks: the ends of responses that ran in the background.
extension JobConsumer {
    /// Maximum dead webhooks kept in a partition, approximately.
    private static let deadMaximum = 1_000

    /// The partitions in which a delivery is due.
    /// - Parameter now: milliseconds since 1970.
    package func partitionsWithWebhooks(now: Int = WallClock.milliseconds) async throws(QueueError) -> [Int] {
        var candidates = Array(0..<keys.partitions)
        if candidates.count > 1 || isCluster {
            candidates = try await partitions(candidates, withAny: { [keys.webhooks(partition: $0)] })
        }
        guard !candidates.isEmpty else { return [] }
        var pipeline = RedisPipeline()
        for partition in candidates {
            pipeline.append("ZRANGEBYSCORE", .string(keys.webhooks(partition: partition)), "-inf", .integer(now), "LIMIT", 0, 1)
        }
        let replies = try await redis.send(pipeline)
        return zip(candidates, replies).filter { $1.array?.isEmpty == false }.map(\.0)
    }

    /// Takes due webhooks. They are due again after `lease`, in case this worker dies.
    /// - Parameters:
    ///   - share: the maximum of one owner, those in `running` included.
    ///   - running: the owners' webhooks that this worker has already.
    ///   - skipping: due webhooks to pass over, as the last call returned it.
    /// - Returns: the webhooks, and how many due ones the next call may pass over, because their owners have their share.
    package func takeWebhooks(
        partition: Int, lease: Duration, maximum: Int, share: Int = 1_000, running: [String: Int] = [:], skipping: Int = 0
    ) async throws(QueueError) -> (due: [DueWebhook], skipped: Int) {
        let reply = try await redis.run(
            Scripts.webhookTake, keys: [keys.webhooks(partition: partition)],
            arguments: [.integer(lease.wholeMilliseconds), .integer(maximum), .integer(share), .integer(skipping)]
                + running.flatMap { [.string($0.key), .integer($0.value)] })
        let all = reply.array ?? []
        let values = all.dropFirst().map { $0.string ?? "" }
        let due = stride(from: 0, to: values.count - 4, by: 5).compactMap { index -> DueWebhook? in
            guard let job = JobID(values[index]) else { return nil }
            return DueWebhook(
                job: job, type: values[index + 1], owner: values[index + 2], created: Int(values[index + 3])?.boundedCount ?? 0,
                attempt: Int(values[index + 4])?.boundedCount ?? 0)
        }
        return (due, max(0, all.first?.integer ?? 0))
    }

    /// Reads, and resets, how many webhooks of a partition were dropped because too many waited. 0 for a key of the wrong type.
    package func takeDroppedWebhooks(partition: Int) async throws(QueueError) -> Int {
        var pipeline = RedisPipeline()
        pipeline.append("GETDEL", .string(keys.droppedWebhooks(partition: partition)))
        return try await redis.send(pipeline).first?.string.flatMap { Int($0)?.boundedCount } ?? 0
    }

    /// Records the result of a delivery. No effect when another worker has taken the webhook since.
    package func settle(_ webhook: DueWebhook, _ result: WebhookResult) async throws(QueueError) {
        let (outcome, delay, error): (String, Duration, String) =
            switch result {
            case .delivered: ("done", .zero, "")
            case .failed(let error, let delay): ("retry", delay, error)
            case .dead(let error): ("dead", .zero, error)
            }
        let partition = keys.partition(of: webhook.job.rawValue)
        _ = try await redis.run(
            Scripts.webhookSettle,
            keys: [
                keys.webhooks(partition: partition), keys.failingWebhooks(partition: partition), keys.deadWebhooks(partition: partition),
                keys.webhookError(partition: partition),
            ],
            arguments: [
                .string(webhook.job.rawValue), .integer(webhook.attempt), .string(outcome), .integer(delay.wholeMilliseconds),
                .string(error), .integer(Self.deadMaximum),
            ])
    }
}
