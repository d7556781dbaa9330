import CurlTransport
import Observability
import OperatorTools
import Support
import Upstream
import Worker

extension SettingsReader {
    /// The worker's settings; unset ones keep the defaults of `WorkerSettings`.
    mutating func worker() -> WorkerSettings {
        var worker = WorkerSettings(name: nodeName("SLUICE_WORKER_NAME"))
        if let concurrency = integer("SLUICE_CONCURRENCY") { worker.concurrency = concurrency }
        if let timeout = duration("SLUICE_DRAIN_TIMEOUT") { worker.drainTimeout = timeout }
        if let retries = integer("SLUICE_RETRIES") { worker.retries = retries }
        if let timeout = duration("SLUICE_FIRST_TOKEN_TIMEOUT") { worker.firstTokenTimeout = timeout }
        if let timeout = duration("SLUICE_IDLE_TIMEOUT") { worker.idleTimeout = timeout }
        if let timeout = duration("SLUICE_TOTAL_TIMEOUT") { worker.totalTimeout = timeout }
        if let model = text("SLUICE_DEFAULT_MODEL") { worker.defaultModel = model }
        worker.upstreams = upstreams()
        if let timeout = duration("SLUICE_CONNECT_TIMEOUT") { worker.upstreamSettings.connectTimeout = timeout }
        worker.upstreamSettings.caFile = text("SLUICE_UPSTREAM_CA_FILE")
        worker.upstreamSettings.http2 = flag("SLUICE_UPSTREAM_HTTP2")
        worker.speech = speech()
        if let limit = integer("SLUICE_SPEECH_CONCURRENCY") { worker.speechConcurrency = limit }
        worker.metricsListen = address("SLUICE_METRICS_LISTEN").map { ($0.host, $0.port) }
        worker.metricsText = { prometheusText() }
        return worker
    }

    /// The upstreams of `SLUICE_UPSTREAMS_FILE`, or the one of `SLUICE_UPSTREAM_URL`; empty when neither is set.
    mutating func upstreams() -> [UpstreamConfiguration] {
        let key = secret("SLUICE_UPSTREAM_KEY")
        guard let path = text("SLUICE_UPSTREAMS_FILE") else {
            guard let url = text("SLUICE_UPSTREAM_URL") else { return [] }
            let kind = text("SLUICE_UPSTREAM_KIND").flatMap(UpstreamConfiguration.Kind.init) ?? .openai
            var upstream = UpstreamConfiguration(name: kind.rawValue, kind: kind, url: url, key: key)
            if let prefix = text("SLUICE_UPSTREAM_PREFIX").flatMap(UpstreamConfiguration.Prefix.init) { upstream.prefix = prefix }
            return [upstream]
        }
        if source.value("SLUICE_UPSTREAM_URL") != nil {
            fault("SLUICE_UPSTREAMS_FILE", "it is set together with SLUICE_UPSTREAM_URL", "keep one of them")
        }
        let file = UpstreamsFile(path: path, environment: source.environment)
        add(file.faults)
        return file.upstreams
    }

    /// The speech upstream; nil when `SLUICE_SPEECH_URL` is unset.
    private mutating func speech() -> SpeechConfiguration? {
        let (key, model, voice) = (text("SLUICE_SPEECH_KEY"), text("SLUICE_SPEECH_MODEL"), text("SLUICE_SPEECH_VOICE"))
        let kind = text("SLUICE_SPEECH_KIND").flatMap(SpeechConfiguration.Kind.init)
        guard let url = text("SLUICE_SPEECH_URL") else {
            if kind != nil, source.value("SLUICE_SPEECH_URL") == nil {
                fault("SLUICE_SPEECH_KIND", "it is set without SLUICE_SPEECH_URL", "set the speech upstream's URL too")
            }
            return nil
        }
        return SpeechConfiguration(kind: kind ?? .openai, url: url, key: key, model: model, voice: voice)
    }

    /// Adds a fault when no upstream is set, because a worker cannot run jobs without one.
    mutating func requireUpstream() {
        guard source.value("SLUICE_UPSTREAM_URL") == nil, source.value("SLUICE_UPSTREAMS_FILE") == nil else { return }
        fault("SLUICE_UPSTREAM_URL", "no upstream is set", "set it (such as https://host/v1) or SLUICE_UPSTREAMS_FILE")
    }
}
