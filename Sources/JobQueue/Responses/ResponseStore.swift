import Contract
import JSONCodec
import RedisClient
import Support

/// What is stored of a response beside its job: the request's side. The answer's side is the job's event log, which is kept as long.
package struct StoredResponse: Sendable, Equatable {
    package var owner: String
    /// Seconds since 1970.
    package var created: Int
    package var isBackground: Bool
    /// Whether reasoning is reported as a summary.
    package var summarizes: Bool
    /// The fields of the request that the response object repeats.
    package var echo: JSONObject
    /// The input items.
    package var items: [JSON]

    package init(owner: String, created: Int, isBackground: Bool, summarizes: Bool, echo: JSONObject, items: [JSON]) {
        self.owner = owner
        self.created = created
        self.isBackground = isBackground
        self.summarizes = summarizes
        self.echo = echo
        self.items = items
    }

    /// Nil for a reply without the fields of a response.
    fileprivate init?(_ reply: RESPValue) {
        let fields = reply.fields
        guard let owner = fields["owner"], let echo = fields["echo"].flatMap({ try? JSON(parsing: $0) })?.object,
            let items = fields["items"].flatMap({ try? JSON(parsing: $0) })?.array
        else { return nil }
        self.init(
            owner: owner, created: fields["created"].flatMap { Int($0)?.boundedCount } ?? 0, isBackground: fields["background"] == "1",
            summarizes: fields["summarizes"] == "1", echo: echo, items: items)
    }
}

/// Stores the responses of the Responses API, whose ids are those of their jobs.
package struct ResponseStore: Sendable {
    private let redis: RedisClient
    private let keys: Keys
    private let retentionSeconds: Int
    private let ttlSeconds: Int
    private let maximumBytes: Int

    /// - Parameters:
    ///   - ttl: how long a response is kept from its creation.
    ///   - maximumBytes: maximum bytes of an owner's responses with their event logs; each partition enforces an equal share; 0: no limit.
    package init(queue: JobProducer, ttl: Duration, maximumBytes: Int) {
        redis = queue.redis
        keys = queue.keys
        retentionSeconds = queue.settings.retentionSeconds
        ttlSeconds = max(1, ttl.wholeSeconds)
        self.maximumBytes = maximumBytes == 0 ? 0 : max(1, maximumBytes / queue.partitions)
    }

    /// Stores a response before its job is submitted; the log of a job with a stored response is kept as long as that.
    /// - Returns: false when the owner's responses have reached their limit; nothing is stored then.
    package func save(_ id: JobID, _ response: StoredResponse) async throws(QueueError) -> Bool {
        let fields: [(String, String)] = [
            ("owner", response.owner), ("created", String(response.created)), ("background", response.isBackground ? "1" : "0"),
            ("summarizes", response.summarizes ? "1" : "0"), ("echo", JSON.object(response.echo).text),
            ("items", JSON.array(response.items).text),
        ]
        var arguments: [RedisArgument] = [.string(id.rawValue), .integer(ttlSeconds), .integer(maximumBytes)]
        for (name, value) in fields { arguments += [.string(name), .string(value)] }
        let answer = try await redis.run(Scripts.responseSave, keys: scriptKeys(id, owner: response.owner), arguments: arguments)
        guard let stored = answer.integer else { throw redis.misfit(answer, to: "the response_save script") }
        return stored == 1
    }

    /// A stored response; nil when there is none, or it has another owner.
    package func load(_ id: JobID, owner: String) async throws(QueueError) -> StoredResponse? {
        let response = StoredResponse(try await redis.send("HGETALL", .string(keys.response(id))))
        return response?.owner == owner ? response : nil
    }

    /// Keeps a response that another one continues at least as long as a new one.
    package func touch(_ id: JobID, owner: String) async throws(QueueError) {
        _ = try await redis.run(
            Scripts.responseTouch, keys: scriptKeys(id, owner: owner) + [keys.record(id), keys.log(id)], arguments: [.integer(ttlSeconds)])
    }

    /// Deletes a response. Its job's record and log are kept for the retention of other jobs.
    /// - Returns: whether the response existed.
    package func delete(_ id: JobID, owner: String) async throws(QueueError) -> Bool {
        let answer = try await redis.run(
            Scripts.responseDelete, keys: scriptKeys(id, owner: owner) + [keys.record(id), keys.log(id)],
            arguments: [.string(id.rawValue), .integer(retentionSeconds)])
        return answer.integer == 1
    }

    private func scriptKeys(_ id: JobID, owner: String) -> [String] {
        [keys.response(id), keys.responseBytes(of: owner, partition: keys.partition(of: id.rawValue))]
    }
}
