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
        worker.recognition = recognition()
        worker.retrieval = retrieval()
        if let limit = integer("SLUICE_SPEECH_CONCURRENCY") { worker.speechConcurrency = limit }
        worker.webhooks = webhooks()
        worker.webhooks.caFile = worker.upstreamSettings.caFile
        worker.metricsListen = address("SLUICE_METRICS_LISTEN").map { ($0.host, $0.port) }
        worker.metricsText = { prometheusText() }
        return worker
    }

    /// The upstreams of `SLUICE_UPSTREAMS_FILE`, or the one of `SLUICE_UPSTREAM_URL`; empty when neither is set.
    mutating func upstreams() -> [UpstreamConfiguration] {
        let key = upstreamKey("SLUICE_UPSTREAM_KEY", secret("SLUICE_UPSTREAM_KEY"))
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

    /// Adds a fault if the key cannot be sent, and returns it.
    private mutating func upstreamKey(_ name: String, _ key: String?) -> String? {
        if let key, !UpstreamConfiguration.isSendable(key: key) {
            fault(name, "it contains characters that HTTP headers do not allow", "write one key, without spaces and line breaks")
        }
        return key
    }

    /// The speech upstream; nil when `SLUICE_SPEECH_URL` is unset.
    private mutating func speech() -> SpeechConfiguration? {
        let key = upstreamKey("SLUICE_SPEECH_KEY", text("SLUICE_SPEECH_KEY"))
        let (model, voice) = (text("SLUICE_SPEECH_MODEL"), text("SLUICE_SPEECH_VOICE"))
        let kind = text("SLUICE_SPEECH_KIND").flatMap(SpeechConfiguration.Kind.init)
        guard let url = text("SLUICE_SPEECH_URL") else {
            if kind != nil, source.value("SLUICE_SPEECH_URL") == nil {
                fault("SLUICE_SPEECH_KIND", "it is set without SLUICE_SPEECH_URL", "set the speech upstream's URL too")
            }
            return nil
        }
        return SpeechConfiguration(kind: kind ?? .openai, url: url, key: key, model: model, voice: voice)
    }

    /// The recognition upstream; nil when `SLUICE_RECOGNITION_URL` is unset.
    private mutating func recognition() -> RecognitionConfiguration? {
        let key = upstreamKey("SLUICE_RECOGNITION_KEY", text("SLUICE_RECOGNITION_KEY"))
        let model = text("SLUICE_RECOGNITION_MODEL")
        let language = text("SLUICE_RECOGNITION_LANGUAGE")
        let kind = text("SLUICE_RECOGNITION_KIND").flatMap(RecognitionConfiguration.Kind.init)
        guard let url = text("SLUICE_RECOGNITION_URL") else {
            if kind != nil, source.value("SLUICE_RECOGNITION_URL") == nil {
                fault("SLUICE_RECOGNITION_KIND", "it is set without SLUICE_RECOGNITION_URL", "set the recognition upstream's URL too")
            }
            return nil
        }
        return RecognitionConfiguration(kind: kind ?? .openai, url: url, key: key, model: model, language: language)
    }

    /// The retrieval upstream; nil when `SLUICE_RETRIEVAL_URL` is unset.
    private mutating func retrieval() -> RetrievalConfiguration? {
        let key = upstreamKey("SLUICE_RETRIEVAL_KEY", text("SLUICE_RETRIEVAL_KEY"))
        let threshold = text("SLUICE_RETRIEVAL_THRESHOLD")
        let (topK, timeout) = (integer("SLUICE_RETRIEVAL_TOP_K"), duration("SLUICE_RETRIEVAL_TIMEOUT"))
        guard let url = text("SLUICE_RETRIEVAL_URL") else { return nil }
        var retrieval = RetrievalConfiguration(url: url, key: key)
        if let topK { retrieval.topK = topK }
        if let timeout { retrieval.timeout = timeout }
        if let threshold {
            if let number = Double(threshold), (0...1).contains(number) {
                retrieval.threshold = number
            } else {
                fault("SLUICE_RETRIEVAL_THRESHOLD", "it is not a number from 0 to 1", "write a number such as 0.5")
            }
        }
        return retrieval
    }

    /// The receiver of webhooks and the addresses it may have.
    private mutating func webhooks() -> WebhookSettings {
        var webhooks = WebhookSettings()
        let secret = secret("SLUICE_WEBHOOK_SECRET")
        if let list = text("SLUICE_WEBHOOK_ALLOW") {
            if let rule = AddressRule(list) {
                webhooks.allow = rule
            } else {
                fault(
                    "SLUICE_WEBHOOK_ALLOW", "it is not a list of addresses",
                    "write public, any, addresses or networks such as 10.0.0.0/8, separated by commas")
            }
        }
        if let secret, !WebhookSettings.Target.isUsable(secret: secret) {
            fault("SLUICE_WEBHOOK_SECRET", "no base64 follows whsec_", "write whsec_ and base64, or a text that begins differently")
        }
        if let url = text("SLUICE_WEBHOOK_URL") { webhooks.target = .init(url: url, secret: secret ?? "") }
        if let path = text("SLUICE_TENANTS_FILE") {
            // `tenants` reports the file's faults.
            webhooks.tenants = TenantsFile(path: path).webhooks
        }
        return webhooks
    }

    /// Adds a fault when no upstream is set, because a worker cannot run jobs without one.
    mutating func requireUpstream() {
        guard source.value("SLUICE_UPSTREAM_URL") == nil, source.value("SLUICE_UPSTREAMS_FILE") == nil else { return }
        fault("SLUICE_UPSTREAM_URL", "no upstream is set", "set it (such as https://host/v1) or SLUICE_UPSTREAMS_FILE")
    }
}
