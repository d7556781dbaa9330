import Metrics

/// Metrics of upstream requests. Label values are bounded: upstream names come from the configuration, invalid statuses count as 0.
final class UpstreamMetrics {
    private struct Answer: Hashable {
        let upstream: String
        let status: Int
    }

    private var responses: [Answer: Counter] = [:]
    private let opened = Counter(label: "sluice_upstream_connections_total", dimensions: [("use", "opened")])
    private let reused = Counter(label: "sluice_upstream_connections_total", dimensions: [("use", "reused")])
    private var speechResponses = [200: speechCounter(200)]
    private let open = Gauge(label: "sluice_upstream_requests_open")

    /// Counts a response of a generation upstream.
    /// - Parameter status: Status code of the response head.
    func answered(_ upstream: String, status: Int) {
        let answer = Answer(upstream: upstream, status: (100...599).contains(status) ? status : 0)
        if let counter = responses[answer] { return counter.increment() }
        let counter = Counter(
            label: "sluice_upstream_responses_total", dimensions: [("upstream", upstream), ("status", String(answer.status))])
        responses[answer] = counter
        counter.increment()
    }

    /// Counts a response of the speech upstream.
    func spoke(status: Int) {
        let status = (100...599).contains(status) ? status : 0
        let counter = speechResponses[status] ?? Self.speechCounter(status)
        speechResponses[status] = counter
        counter.increment()
    }

    private static func speechCounter(_ status: Int) -> Counter {
        Counter(label: "sluice_speech_responses_total", dimensions: [("status", String(status))])
    }

    /// Counts a connection as opened or reused.
    func connected(isNew: Bool) { (isNew ? opened : reused).increment() }

    /// Records the number of generation calls that have not ended.
    func open(_ count: Int) { open.record(count) }
}
