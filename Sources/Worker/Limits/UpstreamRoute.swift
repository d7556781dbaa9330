import Contract
import Upstream

/// The upstreams that serve a model, in the order of preference.
struct UpstreamRoute: Sendable {
    /// An upstream that may be called, and the model name for it.
    struct Candidate: Sendable {
        let upstream: UpstreamConfiguration
        /// The model name to send to this upstream, after aliases.
        let model: String
    }

    private let upstreams: [UpstreamConfiguration]
    private let byName: [String: UpstreamConfiguration]

    init(_ upstreams: [UpstreamConfiguration]) {
        self.upstreams = upstreams
        byName = Dictionary(upstreams.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
    }

    /// The first upstream that serves the model, then its fallbacks. Empty when no upstream serves the model.
    func candidates(for model: String) -> [Candidate] {
        guard
            let first = upstreams.first(where: {
                $0.models.isEmpty && $0.aliases.isEmpty || $0.models.contains(model) || $0.aliases[model] != nil
            })
        else {
            return []
        }
        let others = first.fallback.compactMap { byName[$0] }
        return ([first] + others).map { Candidate(upstream: $0, model: $0.aliases[model] ?? model) }
    }
}
