import Contract
import JSONCodec
import RedisClient
import Support

/// A job's record: the fields of its hash in Redis that have a value. Never contains the prompt.
package struct JobRecord: Sendable, Equatable {
    package var fields: [String: String]

    /// Maximum size of a field in bytes; longer ones are cut. The longest that a node writes is a failure's message.
    private static let maximumField = 8_192

    package init(fields: [String: String]) { self.fields = fields.mapValues { $0.cut(toBytes: Self.maximumField) } }

    /// Nil for an unknown job: an empty hash or one without a state.
    init?(_ reply: RESPValue) {
        var fields = reply.fields
        // Internal to the queue: the process that owns the job, and the entry's location.
        for name in ["token", "entry", "usage_to", "unlisted_ms"] { fields[name] = nil }
        if fields["state"] == nil { return nil }
        self.init(fields: fields)
    }

    package var state: JobState? { fields["state"].flatMap(JobState.init) }
    package var owner: String? { fields["owner"] }
    /// Fields that are only part of `usage` in JSON.
    static let usageDetails: Set<String> = ["cached", "reasoning"]
    package var attempt: Int { count("attempt") ?? 0 }
    /// A number of the record in `0...Int.maximumExact`; nil when there is none.
    package func count(_ name: String) -> Int? { fields[name].flatMap { Int($0)?.boundedCount } }
    /// The usage, with the fields `cached`, `reasoning` and `billing`.
    package var usage: Usage? {
        var usage = fields["usage"].flatMap { try? JSON(parsing: $0) }.flatMap { Usage($0) }
        if let cached = count("cached") { usage?.cachedTokens = cached }
        if let reasoning = count("reasoning") { usage?.reasoningTokens = reasoning }
        if let billing = fields["billing"].flatMap({ Usage.Billing(rawValue: $0) }) { usage?.billing = billing }
        return usage
    }
}
