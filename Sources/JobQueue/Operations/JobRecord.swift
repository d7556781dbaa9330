import Contract
import JSONCodec
import RedisClient
import Support

/// What Redis knows of a job: the hash of the contract, with the fields that have a value. Never holds the prompt.
package struct JobRecord: Sendable, Equatable {
    package var fields: [String: String]

    /// Bytes of a field that are kept: more than the longest that a node writes, a failure's message.
    private static let maximumField = 8_192

    package init(fields: [String: String]) { self.fields = fields.mapValues { $0.cut(toBytes: Self.maximumField) } }

    /// Nil for an empty hash: there is no such job.
    init?(_ reply: RESPValue) {
        guard let values = reply.array, !values.isEmpty else { return nil }
        var fields: [String: String] = [:]
        for index in stride(from: 0, to: values.count - 1, by: 2) {
            guard let name = values[index].string, let value = values[index + 1].string else { continue }
            // How the queue finds the job's entry and its owner's process: nobody else's business.
            if name != "token" && name != "entry" { fields[name] = value }
        }
        if fields["state"] == nil { return nil }
        self.init(fields: fields)
    }

    package var state: JobState? { fields["state"].flatMap(JobState.init) }
    package var owner: String? { fields["owner"] }
    package var attempt: Int { count("attempt") ?? 0 }
    /// A number of the record in `0...Int.maximumExact`; nil when there is none.
    package func count(_ name: String) -> Int? { fields[name].flatMap { Int($0)?.boundedCount } }
    package var usage: Usage? { fields["usage"].flatMap { try? JSON(parsing: $0) }.flatMap { Usage($0) } }
}
