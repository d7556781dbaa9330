import Contract
import CoreMetrics
import CurlTransport
import JobQueue
import Logging
import NIOCore
import Support

/// Delivers webhooks: takes those that are due from Redis, sends them, and records the results. A webhook stays in Redis until its receiver
/// has answered, so a delivery survives the worker that tries it. Runs on the event loop of the Redis connections.
actor WebhookSender: PinnedActor {
    /// Maximum deliveries at a time.
    private static let maximum = 16
    /// Maximum deliveries of one tenant at a time, so that a slow receiver does not delay those of others.
    private static let share = 4
    /// After this time another worker may take the webhook. Longer than a delivery.
    private static let lease = Duration.seconds(20)
    /// Maximum time that a rolling change of the workers' settings takes.
    private static let settingsSpread = Duration.seconds(600)
    /// Average time between two looks for due webhooks by any of the workers. The more workers there are the less often each of them looks, so that
    /// the looks of all cost the same; at least once in about `longest`.
    private static let interval = Duration.seconds(1)
    private static let longest = Duration.seconds(30)
    /// Minimum time between two warnings about dropped webhooks, in seconds.
    private static let warningInterval = 60
    private static let backoff: ClosedRange<Duration> = .seconds(5)...(.seconds(3_600))

    private nonisolated let consumer: JobConsumer
    private let targets: WebhookTargets
    /// How long deliveries are tried.
    private let patience: Duration
    private let client: WebhookClient
    private let workers: @Sendable () -> Int
    private let logger: Logger
    private nonisolated let rounds: RoundTimer
    private var running = 0
    /// Running deliveries of each tenant.
    private var runningOf: [String: Int] = [:]
    /// The number of due webhooks that were passed over in each partition, because their tenants have their share.
    private var skipped: [Int: Int] = [:]
    /// Whether the last look found a due webhook, so that more may be due.
    private var hasMore = false
    private var isLooking = false
    private var errorLog = OnceLogger("webhooks could not be read from Redis", over: "webhooks read from Redis")
    private let delivered = Counter(label: "sluice_webhooks_total", dimensions: [("result", "delivered")])
    private let failed = Counter(label: "sluice_webhooks_total", dimensions: [("result", "failed")])
    private let dead = Counter(label: "sluice_webhooks_total", dimensions: [("result", "dead")])
    private let dropped = Counter(label: "sluice_webhooks_total", dimensions: [("result", "dropped")])
    /// Webhooks dropped since the last warning, and the time of the last one in seconds since 1970.
    private var unreported = 0
    private var warnedAt = 0

    nonisolated var executor: QueueExecutor { consumer.executor }

    /// - Parameter workers: the number of workers of the deployment, at least 1.
    init(
        consumer: JobConsumer, targets: WebhookTargets, patience: Duration, client: WebhookClient, workers: @escaping @Sendable () -> Int,
        logger: Logger
    ) {
        self.workers = workers
        self.consumer = consumer
        self.targets = targets
        self.patience = patience
        self.client = client
        self.logger = logger
        rounds = RoundTimer(consumer.eventLoop)
    }

    /// Looks for due webhooks until `stop`.
    func run() async {
        while !rounds.isStopped {
            await deliverDue()
            await rounds.wait(for: TimeAmount(min(Self.interval * workers(), Self.longest) * Double.random(in: 0.5...1.5)))
        }
    }

    /// Starts no further deliveries. Running ones are cut off with the process, and repeated by another worker.
    nonisolated func stop() { rounds.stop() }

    private func deliverDue() async {
        guard running < Self.maximum, !isLooking else { return }
        isLooking = true
        defer { isLooking = false }
        do {
            hasMore = false
            // In any order, so that a backlog in one partition does not hold up the others.
            for partition in try await consumer.partitionsWithWebhooks().shuffled() where running < Self.maximum && !rounds.isStopped {
                let taken = try await consumer.takeWebhooks(
                    partition: partition, lease: Self.lease, maximum: Self.maximum - running, share: Self.share, running: runningOf,
                    skipping: skipped[partition] ?? 0)
                skipped[partition] = taken.skipped
                for webhook in taken.due { begin(webhook) }
                if !taken.due.isEmpty { reportDropped(try await consumer.takeDroppedWebhooks(partition: partition)) }
            }
            errorLog.recovered(logger)
        } catch {
            errorLog.failed(error, logger)
        }
    }

    /// Counts webhooks that were dropped because too many waited, and logs them, at most once in `warningInterval`.
    private func reportDropped(_ count: Int) {
        guard count > 0 else { return }
        dropped.increment(by: count)
        unreported = unreported.saturatingAdding(count)
        let now = WallClock.seconds
        guard now - warnedAt >= Self.warningInterval else { return }
        logger.warning("webhooks dropped: too many wait for their receivers", metadata: ["dropped": "\(unreported)"])
        warnedAt = now
        unreported = 0
    }

    private func begin(_ webhook: DueWebhook) {
        hasMore = true
        running += 1
        runningOf[webhook.owner, default: 0] += 1
        Task {
            await deliver(webhook)
            running -= 1
            runningOf[webhook.owner] = runningOf[webhook.owner].flatMap { $0 > 1 ? $0 - 1 : nil }
            if hasMore, !rounds.isStopped { await deliverDue() }
        }
    }

    private func deliver(_ webhook: DueWebhook) async {
        let now = WallClock.seconds
        guard let target = targets.target(of: webhook.owner) else {
            // There is nothing to deliver, unless other workers have newer settings: they get it when the lease is over.
            guard now - webhook.created > Self.settingsSpread.wholeSeconds else { return }
            return await settle(webhook, .delivered)
        }
        guard let reason = await client.send(WebhookMessage(webhook).request(to: target, timestamp: now)) else {
            delivered.increment()
            logger.debug("webhook delivered", metadata: ["job": "\(webhook.job)", "type": "\(webhook.type)"])
            return await settle(webhook, .delivered)
        }
        failed.increment()
        let metadata: Logger.Metadata = ["job": "\(webhook.job)", "attempt": "\(webhook.attempt)", "reason": "\(reason)"]
        guard now - webhook.created < patience.wholeSeconds else {
            dead.increment()
            logger.warning("webhook given up", metadata: metadata)
            return await settle(webhook, .dead(reason))
        }
        logger.info("webhook failed; it is tried again", metadata: metadata)
        let bound = Backoff.bound(from: Self.backoff.lowerBound, to: Self.backoff.upperBound, attempt: max(0, webhook.attempt - 1))
        await settle(webhook, .failed(reason, after: bound * Double.random(in: 0.5...1)))
    }

    /// Records a result. Without Redis the webhook is delivered again when its lease is over.
    private func settle(_ webhook: DueWebhook, _ result: WebhookResult) async {
        do { try await consumer.settle(webhook, result) } catch {
            logger.debug("result of a webhook not recorded", metadata: ["job": "\(webhook.job)", "error": "\(error)"])
        }
    }
}
