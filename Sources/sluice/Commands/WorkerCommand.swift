import ArgumentParser
import Worker

struct WorkerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "worker",
        abstract: "Run a worker: takes jobs from Redis and streams them from the model's provider.",
        discussion: """
            Who is asked stands in SLUICE_UPSTREAM_URL and SLUICE_UPSTREAM_KEY, or in SLUICE_UPSTREAMS_FILE. SIGHUP reads that file \
            again, for jobs that begin from then on. SIGTERM or SIGINT drains it: what runs may \
            end within SLUICE_DRAIN_TIMEOUT, the rest is handed back; a second one stops it at once.
            """)

    @OptionGroup var settings: SettingsOptions

    func run() async throws {
        let source = settings.source
        var reader = SettingsReader(source)
        let worker = reader.worker()
        let deployment = reader.deployment()
        let logging = reader.logging()
        reader.requireUpstream()
        try reader.finish()
        guard let deployment else { return }
        let logger = NodeStart.begin(.worker, name: worker.name, source: source, logging: logging)
        let service = WorkerService(
            settings: worker, queueSettings: deployment.queue, redisURL: deployment.redisURL, redisSettings: deployment.redis,
            logger: logger)
        let reload = UpstreamsReload(
            path: source.value("SLUICE_UPSTREAMS_FILE")?.text, environment: source.environment, feed: service.upstreams, logger: logger)
        try await NodeRun(services: [service, reload], logger: logger).run()
    }
}
