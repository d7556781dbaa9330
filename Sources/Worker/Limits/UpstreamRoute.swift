import Contract
import Upstream

/// Which upstreams serve a model, in the order in which they are tried.
struct UpstreamRoute: Sendable {
    struct Stop: Sendable {
        let upstream: UpstreamConfiguration
        /// The name under which this upstream knows the model.
        let model: String
    }

    private let upstreams: [UpstreamConfiguration]
    private let byName: [String: UpstreamConfiguration]

    init(_ upstreams: [UpstreamConfiguration]) {
        self.upstreams = upstreams
        byName = Dictionary(upstreams.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
    }

    /// Empty when no upstream serves the model.
    func stops(for model: String) -> [Stop] {
        guard
            let first = upstreams.first(where: {
                $0.models.isEmpty && $0.aliases.isEmpty || $0.models.contains(model) || $0.aliases[model] != nil
            })
        else {
            return []
        }
        let others = first.fallback.compactMap { byName[$0] }
        return ([first] + others).map { Stop(upstream: $0, model: $0.aliases[model] ?? model) }
    }
}
