import ArgumentParser
import Worker

/// `sluice worker`.
struct WorkerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "worker",
        abstract: "Run a worker: claims jobs from Redis and streams their answers from the upstreams.",
        discussion: """
            Upstreams are set by SLUICE_UPSTREAM_URL and SLUICE_UPSTREAM_KEY, or by SLUICE_UPSTREAMS_FILE. SIGHUP reloads that file for \
            jobs that start afterwards. SIGTERM or SIGINT drains the worker: running jobs may end within SLUICE_DRAIN_TIMEOUT, the rest is \
            handed back. A second signal stops it at once.
            """)

    @OptionGroup var settings: SettingsOptions

    func run() async throws {
        let source = settings.source
        var reader = SettingsReader(source)
        let worker = reader.worker()
        let deployment = reader.deployment()
        let logging = reader.logging()
        let tenants = reader.tenants()
        reader.requireUpstream()
        try reader.finish()
        guard let deployment else { return }
        let logger = NodeStart.begin(.worker, name: worker.name, source: source, logging: logging)
        let service = WorkerService(
            settings: worker, queueSettings: deployment.queue, redisURL: deployment.redisURL, redisSettings: deployment.redis,
            logger: logger)
        let reload = UpstreamsReload(
            path: source.value("SLUICE_UPSTREAMS_FILE")?.text, environment: source.environment, feed: service.upstreams, logger: logger)
        let limits = TenantsReload(
            tenants, deployment: deployment, path: source.value("SLUICE_TENANTS_FILE")?.text, targets: service.webhookTargets,
            logger: logger)
        try await NodeRun(services: [service, reload, limits], logger: logger).run()
    }
}
