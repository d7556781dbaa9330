import Contract
import RedisClient

/// What Redis knows of a job: the hash of the contract, with the fields that have a value. Never holds the prompt.
package struct JobRecord: Sendable, Equatable {
    package var fields: [String: String]

    package init(fields: [String: String]) { self.fields = fields }

    /// Nil for an empty hash: there is no such job.
    init?(_ reply: RESPValue) {
        guard let values = reply.array, !values.isEmpty else { return nil }
        fields = [:]
        for index in stride(from: 0, to: values.count - 1, by: 2) {
            guard let name = values[index].string, let value = values[index + 1].string else { continue }
            // How the queue finds the job's entry and its owner's process: nobody else's business.
            if name != "token" && name != "entry" { fields[name] = value }
        }
        if fields["state"] == nil { return nil }
    }

    package var state: JobState? { fields["state"].flatMap(JobState.init) }
    package var owner: String? { fields["owner"] }
    package var attempt: Int { fields["attempt"].flatMap { Int($0) } ?? 0 }
    package var usage: Usage? { fields["usage"].flatMap { try? JSON(parsing: $0) }.flatMap { Usage($0) } }
}
