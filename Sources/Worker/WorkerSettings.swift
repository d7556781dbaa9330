import JobQueue
import Upstream

/// What a worker may be told. Each field names its setting.
package struct WorkerSettings: Sendable {
    /// `SLUICE_WORKER_NAME`: the consumer's name, unique among the workers that run.
    package var name: String
    /// `SLUICE_CONCURRENCY`: jobs in flight, 1 to 100,000.
    package var concurrency = 256
    /// `SLUICE_DRAIN_TIMEOUT`: how long running jobs may go on after SIGTERM before they are handed back.
    package var drainTimeout: Duration = .seconds(25)
    /// `SLUICE_RETRIES`: further tries before the first token, after the first one.
    package var retries = 3
    /// Waits between tries: from, doubling to; full jitter.
    package var backoff: ClosedRange<Duration> = .milliseconds(250)...(.seconds(10))
    /// `SLUICE_FIRST_TOKEN_TIMEOUT`, `SLUICE_IDLE_TIMEOUT`, `SLUICE_TOTAL_TIMEOUT`: a job's own values go first.
    package var firstTokenTimeout: Duration = .seconds(30)
    package var idleTimeout: Duration = .seconds(30)
    package var totalTimeout: Duration = .seconds(600)
    /// `SLUICE_DEFAULT_MODEL`
    package var defaultModel = "qwen-plus"
    /// In the file's order; one without models takes every model name.
    package var upstreams: [UpstreamConfiguration] = []
    package var upstreamSettings = UpstreamSettings()
    /// `SLUICE_SPEECH_*`: who speaks for jobs that ask for it; nil: nobody.
    package var speech: SpeechConfiguration?
    /// `SLUICE_SPEECH_CONCURRENCY`: syntheses open at once, at least 1; others wait.
    package var speechConcurrency = 256
    /// `SLUICE_METRICS_LISTEN`: host and port of `/healthz`, `/readyz`, `/metrics`; nil: off.
    package var metricsListen: (host: String, port: Int)?
    /// What `/metrics` answers.
    package var metricsText: @Sendable () -> String = { "" }

    package init(name: String) { self.name = name }
}
