import Contract
import Support

/// The share and the limits of one tenant, or of all tenants without an entry of their own. Nil: no limit.
package struct TenantLimits: Sendable, Hashable {
    /// Share of the tokens among tenants with waiting jobs, relative to that of others.
    package var weight = 1.0
    /// Running jobs at a time.
    package var concurrency: Int?
    package var requestsPerMinute: Int?
    package var tokensPerMinute: Int?
    /// Tokens per UTC day, after which further jobs are refused.
    package var dailyTokens: Int?

    package init() {}

    /// Parses the text in Redis; nil for another text. 0 is no limit.
    init?(_ text: String) {
        let parts = text.split(separator: " ")
        guard let first = parts.first.flatMap({ Double($0) }), first > 0, first.isFinite else { return nil }
        func count(_ place: Int) -> Int? {
            guard parts.indices.contains(place), let number = Int(parts[place])?.boundedCount, number > 0 else { return nil }
            return number
        }
        weight = first
        (concurrency, requestsPerMinute, tokensPerMinute, dailyTokens) = (count(1), count(2), count(3), count(4))
    }

    /// The text in Redis, as the scripts read it: weight, concurrency, requests and tokens per minute, daily tokens.
    var text: String {
        ([concurrency, requestsPerMinute, tokensPerMinute, dailyTokens].map { String($0 ?? 0) }).reduce("\(weight)") { $0 + " " + $1 }
    }

    /// The limit of a tenant's running jobs.
    package func limit(of tenant: String) -> SharedLimit {
        SharedLimit(
            .tenant, tenant, concurrency: concurrency, requestsPerMinute: requestsPerMinute, tokensPerMinute: tokensPerMinute)
    }
}
