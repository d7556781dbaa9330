import Metrics

/// What the upstream room counts. Upstreams are those of the configuration, statuses those of HTTP: both few.
final class UpstreamMetrics {
    private struct Answer: Hashable {
        let upstream: String
        let status: Int
    }

    private var responses: [Answer: Counter] = [:]
    private let opened = Counter(label: "sluice_upstream_connections_total", dimensions: [("use", "opened")])
    private let reused = Counter(label: "sluice_upstream_connections_total", dimensions: [("use", "reused")])
    private var spoken = [200: spokenCounter(200)]
    private let open = Gauge(label: "sluice_upstream_requests_open")

    /// - Parameter status: of the response's head.
    func answered(_ upstream: String, status: Int) {
        let answer = Answer(upstream: upstream, status: (100...599).contains(status) ? status : 0)
        if let counter = responses[answer] { return counter.increment() }
        let counter = Counter(
            label: "sluice_upstream_responses_total", dimensions: [("upstream", upstream), ("status", String(answer.status))])
        responses[answer] = counter
        counter.increment()
    }

    /// Of the speech upstream.
    func spoke(status: Int) {
        let status = (100...599).contains(status) ? status : 0
        let counter = spoken[status] ?? Self.spokenCounter(status)
        spoken[status] = counter
        counter.increment()
    }

    private static func spokenCounter(_ status: Int) -> Counter {
        Counter(label: "sluice_speech_responses_total", dimensions: [("status", String(status))])
    }

    func connected(isNew: Bool) { (isNew ? opened : reused).increment() }

    func open(_ count: Int) { open.record(count) }
}
