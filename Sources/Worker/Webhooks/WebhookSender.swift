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
    /// After this time another worker may take the webhook. Longer than a delivery.
    private static let lease = Duration.seconds(60)
    /// Maximum time that a rolling change of the workers' settings takes.
    private static let settingsSpread = Duration.seconds(600)
    /// Time between two looks for due webhooks.
    private static let interval = TimeAmount.seconds(1)
    /// Minimum time between two warnings about dropped webhooks, in seconds.
    private static let warningInterval = 60
    private static let backoff: ClosedRange<Duration> = .seconds(5)...(.seconds(3_600))

    private nonisolated let consumer: JobConsumer
    private let settings: WebhookSettings
    private let client: WebhookClient
    private let logger: Logger
    private nonisolated let rounds: RoundTimer
    private var running = 0
    private var errorLog = OnceLogger("webhooks could not be read from Redis", over: "webhooks read from Redis")
    private let delivered = Counter(label: "sluice_webhooks_total", dimensions: [("result", "delivered")])
    private let failed = Counter(label: "sluice_webhooks_total", dimensions: [("result", "failed")])
    private let dead = Counter(label: "sluice_webhooks_total", dimensions: [("result", "dead")])
    private let dropped = Counter(label: "sluice_webhooks_total", dimensions: [("result", "dropped")])
    /// Webhooks dropped since the last warning, and the time of the last one in seconds since 1970.
    private var unreported = 0
    private var warnedAt = 0

    nonisolated var executor: QueueExecutor { consumer.executor }

    init(consumer: JobConsumer, settings: WebhookSettings, client: WebhookClient, logger: Logger) {
        self.consumer = consumer
        self.settings = settings
        self.client = client
        self.logger = logger
        rounds = RoundTimer(consumer.eventLoop)
    }

    /// Looks for due webhooks until `stop`.
    func run() async {
        while !rounds.isStopped {
            await deliverDue()
            await rounds.wait(for: Self.interval)
        }
    }

    /// Starts no further deliveries. Running ones are cut off with the process, and repeated by another worker.
    nonisolated func stop() { rounds.stop() }

    private func deliverDue() async {
        guard running < Self.maximum else { return }
        do {
            // In any order, so that a backlog in one partition does not hold up the others.
            for partition in try await consumer.partitionsWithWebhooks().shuffled() where running < Self.maximum && !rounds.isStopped {
                let (due, dropped) = try await consumer.takeWebhooks(
                    partition: partition, lease: Self.lease, maximum: Self.maximum - running)
                reportDropped(dropped)
                running += due.count
                for webhook in due {
                    Task {
                        await self.deliver(webhook)
                        self.running -= 1
                    }
                }
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

    private func deliver(_ webhook: DueWebhook) async {
        let now = WallClock.seconds
        guard let target = settings.target(of: webhook.owner) else {
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
        guard now - webhook.created < settings.patience.wholeSeconds else {
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
