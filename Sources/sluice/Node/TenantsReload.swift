import JobQueue
import Logging
import NIOConcurrencyHelpers
import ServiceLifecycle
import UnixSignals
import Worker

/// Keeps the settings of tenants in Redis, where all nodes find them, and reads `SLUICE_TENANTS_FILE` again at SIGHUP. A file with faults is
/// rejected as a whole. Does nothing without the setting.
struct TenantsReload: Service {
    /// The settings in Redis expire after 300 s.
    private static let interval = Duration.seconds(60)
    private static let retryInterval = Duration.seconds(2)

    private let tenants: NIOLockedValueBox<[String: TenantLimits]>
    private let deployment: DeploymentSettings
    private let path: String?
    private let targets: WebhookTargets?
    private let logger: Logger

    /// - Parameters:
    ///   - path: nil when the setting is not set.
    ///   - targets: the worker's receivers of webhooks; nil in other nodes.
    init(
        _ tenants: [String: TenantLimits], deployment: DeploymentSettings, path: String?, targets: WebhookTargets? = nil, logger: Logger
    ) {
        self.tenants = NIOLockedValueBox(tenants)
        self.deployment = deployment
        self.path = path
        self.targets = targets
        self.logger = logger
    }

    func run() async throws {
        await cancelWhenGracefulShutdown {
            await withDiscardingTaskGroup { tasks in
                tasks.addTask { await keep() }
                tasks.addTask {
                    for await _ in await UnixSignalsSequence(trapping: .sighup) { await reload() }
                }
            }
        }
    }

    /// Writes the settings at start and every minute.
    private func keep() async {
        while !Task.isCancelled {
            let isWritten = await publish()
            // Cancellation ends the sleep early; the loop then ends.
            try? await Task.sleep(for: isWritten ? Self.interval : Self.retryInterval)
        }
    }

    /// - Returns: whether Redis has the settings.
    private func publish() async -> Bool {
        guard path != nil else { return true }
        let tenants = tenants.withLockedValue { $0 }
        do {
            try await QueueConnection.with(url: deployment.redisURL, redis: deployment.redis, queue: deployment.queue) {
                try await $0.queue.publish(tenants)
            }
            return true
        } catch {
            logger.warning("the settings of tenants could not be written; they are written again", metadata: ["error": "\(error)"])
            return false
        }
    }

    private func reload() async {
        guard let path else { return }
        let file = TenantsFile(path: path)
        guard file.faults.isEmpty else {
            for fault in file.faults { logger.error("fault in the tenants file", metadata: ["fault": "\(fault)"]) }
            return logger.error("tenants reload failed; the previous ones stay in use", metadata: ["faults": "\(file.faults.count)"])
        }
        tenants.withLockedValue { $0 = file.tenants }
        targets?.replace(file.webhooks)
        guard await publish() else { return }
        logger.info("tenants reloaded", metadata: ["tenants": "\(file.tenants.count)"])
    }
}
