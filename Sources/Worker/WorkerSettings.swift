import CurlTransport
import JobQueue
import Upstream

/// The configuration of a worker. Each field names its setting.
package struct WorkerSettings: Sendable {
    /// `SLUICE_WORKER_NAME`: the consumer's name, unique among the workers that run.
    package var name: String
    /// `SLUICE_CONCURRENCY`: slots, that is the maximum number of jobs running at once, 1 to 100,000.
    package var concurrency = 256
    /// `SLUICE_DRAIN_TIMEOUT`: how long running jobs may continue after SIGTERM before they are handed back.
    package var drainTimeout: Duration = .seconds(25)
    /// `SLUICE_RETRIES`: retries at each upstream before the first token, not counting the first request.
    package var retries = 3
    /// Back-off between retries: the first upper limit, doubled for each retry up to the second, with full jitter.
    package var backoff: ClosedRange<Duration> = .milliseconds(250)...(.seconds(10))
    /// `SLUICE_FIRST_TOKEN_TIMEOUT`: maximum time from the request to the first token. A job's own value takes precedence, here and for
    /// the next two.
    package var firstTokenTimeout: Duration = .seconds(30)
    /// `SLUICE_IDLE_TIMEOUT`: maximum time between two outputs.
    package var idleTimeout: Duration = .seconds(30)
    /// `SLUICE_TOTAL_TIMEOUT`: maximum time from the claim to the end.
    package var totalTimeout: Duration = .seconds(600)
    /// `SLUICE_DEFAULT_MODEL`: the model of jobs that name none.
    package var defaultModel = "qwen-plus"
    /// The upstreams in the order of the configuration file. An entry without models and aliases serves every model.
    package var upstreams: [UpstreamConfiguration] = []
    /// Limits and connection settings shared by all upstreams.
    package var upstreamSettings = TransportSettings()
    /// `SLUICE_SPEECH_*`: the text-to-speech upstream; nil disables speech.
    package var speech: SpeechConfiguration?
    /// `SLUICE_SPEECH_CONCURRENCY`: maximum number of open synthesis requests, at least 1; further ones wait.
    package var speechConcurrency = 256
    /// `SLUICE_RECOGNITION_*`: the speech-to-text upstream; nil: jobs with audio fail.
    package var recognition: RecognitionConfiguration?
    /// `SLUICE_RETRIEVAL_*`: the retrieval upstream; nil: no retrieval.
    package var retrieval: RetrievalConfiguration?
    /// `SLUICE_WEBHOOK_*`: where the ends of background responses are reported.
    package var webhooks = WebhookSettings()
    /// `SLUICE_METRICS_LISTEN`: host and port of `/healthz`, `/readyz`, `/metrics`; nil: off.
    package var metricsListen: (host: String, port: Int)?
    /// Renders the body of `/metrics`. Called on any thread.
    package var metricsText: @Sendable () -> String = { "" }

    package init(name: String) { self.name = name }
}
