import JobQueue
import Logging
import RedisClient
import ServiceLifecycle

/// A gateway as a service: graceful shutdown drains it, cancellation stops it at once.
package struct GatewayService: Service {
    private let settings: GatewaySettings
    private let queueSettings: QueueSettings
    private let redisURL: RedisURL
    private let redisSettings: RedisSettings
    private let logger: Logger

    package init(settings: GatewaySettings, queueSettings: QueueSettings, redisURL: RedisURL, redisSettings: RedisSettings, logger: Logger) {
        self.settings = settings
        self.queueSettings = queueSettings
        self.redisURL = redisURL
        self.redisSettings = redisSettings
        self.logger = logger
    }

    package func run() async throws {
        logger.info("gateway starting")
    }
}
