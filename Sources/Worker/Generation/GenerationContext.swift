import CurlTransport
import JobQueue
import Logging
import Upstream

/// What the generations of a worker share. Not thread-safe: used on the upstream loop only.
final class GenerationContext {
    let loop: EpollLoop
    let settings: WorkerSettings
    let queueSettings: QueueSettings
    let upstream: UpstreamClient
    let gate: UpstreamGate
    let speechGate: SpeechGate
    let metrics: WorkerMetrics
    let logger: Logger

    init(
        loop: EpollLoop, settings: WorkerSettings, queueSettings: QueueSettings, upstream: UpstreamClient, metrics: WorkerMetrics,
        logger: Logger
    ) {
        self.loop = loop
        self.settings = settings
        self.queueSettings = queueSettings
        self.upstream = upstream
        self.metrics = metrics
        self.logger = logger
        gate = UpstreamGate(metrics: metrics, logger: logger)
        speechGate = SpeechGate(limit: settings.speechConcurrency)
    }
}
