import ArgumentParser
import Gateway

/// `sluice gateway`.
struct GatewayCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gateway",
        abstract: "Run a gateway: accepts WebSocket and HTTP clients and submits their jobs to Redis.",
        discussion: """
            Listens on SLUICE_LISTEN (127.0.0.1:8080). Authentication is set by SLUICE_API_KEYS, SLUICE_JWT_KEY_FILE, SLUICE_JWT_JWKS_FILE or \
            SLUICE_ACCOUNTS_FILE, or by SLUICE_AUTH=none; one of them is required. SIGTERM or SIGINT drains the gateway; a second one stops it at once.
            """)

    @OptionGroup var settings: SettingsOptions

    func run() async throws {
        let source = settings.source
        var reader = SettingsReader(source)
        let gateway = reader.gateway()
        let deployment = reader.deployment()
        let logging = reader.logging()
        let tenants = reader.tenants()
        reader.requireAuthentication(gateway)
        try reader.finish()
        guard let deployment else { return }
        let logger = NodeStart.begin(.gateway, name: gateway.name, source: source, logging: logging)
        let service = GatewayService(
            settings: gateway, queueSettings: deployment.queue, redisURL: deployment.redisURL, redisSettings: deployment.redis,
            logger: logger)
        let limits = TenantsReload(tenants, deployment: deployment, path: source.value("SLUICE_TENANTS_FILE")?.text, logger: logger)
        try await NodeRun(services: [service, limits], logger: logger).run()
    }
}
