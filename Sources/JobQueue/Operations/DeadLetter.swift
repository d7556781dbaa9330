import Contract
import JSONCodec
import JobQueue
import Observability
import RedisClient
import Support

/// A job that is not retried any more. It contains the prompt, also after the job's record has expired.
struct DeadLetter: Sendable {
    let partition: Int
    /// The id of the entry in the stream.
    let entry: String
    let fields: [String: String]

    /// Nil when the entry does not contain a valid job.
    var job: Job? { fields["job"].flatMap { try? Job(parsing: $0.utf8) } }
    /// The job's id, also of JSON that is no valid job; nil when there is none.
    var id: String? { job?.id.rawValue ?? fields["job"].flatMap { try? JSON(parsing: $0) }?["id"]?.string }
    var code: String { fields["code"] ?? "" }
    var message: String { fields["message"] ?? "" }
    var crashes: Int { fields["crashes"].flatMap { Int($0)?.boundedCount } ?? 0 }
    /// The time of the entry.
    var died: Timestamp? { entry.split(separator: "-").first.flatMap { Int64($0) }.map { Timestamp(milliseconds: $0) } }

    /// Nil when the reply is not a stream entry.
    init?(partition: Int, _ reply: RESPValue) {
        guard let pair = reply.array, pair.count == 2, let entry = pair[0].string else { return nil }
        self.partition = partition
        self.entry = entry
        fields = pair[1].fields
    }

    /// The letter for listings, without the prompt.
    var json: JSON {
        [
            "entry": .string(entry), "partition": .integer(partition), "id": id.map(JSON.string) ?? .null, "code": .string(code),
            "message": .string(message), "crashes": .integer(crashes), "model": job?.model.map(JSON.string) ?? .null,
            "class": job.map { .string($0.priority.rawValue) } ?? .null, "owner": job?.owner.map(JSON.string) ?? .null,
            "died": died.map { .string($0.description) } ?? .null,
        ]
    }
}

/// The dead letters of all partitions.
struct DeadLetters: Sendable {
    /// Entries per command.
    private static let page = 100

    let deployment: Deployment

    private var redis: RedisClient { deployment.redis }

    private func key(_ partition: Int) -> String { deployment.keys.dead(partition: partition) }

    /// The newest letters of all partitions, newest first.
    func list(limit: Int) async throws(RedisError) -> [DeadLetter] {
        var letters: [DeadLetter] = []
        for partition in 0..<deployment.keys.partitions {
            let reply = try await redis.send("XREVRANGE", .string(key(partition)), "+", "-", "COUNT", .integer(limit))
            letters += (reply.array ?? []).compactMap { DeadLetter(partition: partition, $0) }
        }
        return Array(letters.sorted { ($0.died?.milliseconds ?? 0) > ($1.died?.milliseconds ?? 0) }.prefix(limit))
    }

    /// Finds a letter by the job's id or the entry's id. Reads the letters of all partitions in pages.
    func find(_ id: String) async throws(RedisError) -> DeadLetter? {
        for partition in 0..<deployment.keys.partitions {
            var end = "+"
            while true {
                let reply = try await redis.send("XREVRANGE", .string(key(partition)), .string(end), "-", "COUNT", .integer(Self.page))
                let letters = (reply.array ?? []).compactMap { DeadLetter(partition: partition, $0) }
                if let found = letters.first(where: { $0.id == id || $0.entry == id }) { return found }
                guard letters.count == Self.page, let last = letters.last else { break }
                end = "(" + last.entry
            }
        }
        return nil
    }

    /// Submits the job of a letter as a new job and removes the letter.
    ///
    /// The submission's idempotency key is derived from the entry, so a concurrent or repeated retry returns the job of the first one.
    /// - Returns: the new job's id.
    /// - Throws: `RedisError`; `CommandFailure` when the letter contains no job or the queue is full.
    func retry(_ letter: DeadLetter) async throws -> JobID {
        guard var job = letter.job else {
            throw CommandFailure(
                .failed, "sluice: the dead letter \(letter.entry) contains no valid job, so it cannot be retried: \(letter.message)")
        }
        let key = "retry-\(letter.partition)-\(letter.entry)"
        // The idempotency key's hash selects the partition, and the new id must be of the same partition.
        let partition = Int(Partition.crc16("\(job.owner ?? ""):\(key)".utf8)) % deployment.keys.partitions
        job.retryOf = job.id.rawValue
        job.id = JobID(partition: partition, milliseconds: UInt64(Timestamp.now.milliseconds))
        // The deadline may have passed, so it must not apply to the retry.
        job.deadlineMilliseconds = nil
        var options = SubmitOptions()
        options.idempotency = (key: key, digest: letter.entry)
        let id: JobID
        switch try await deployment.queue.submit(job, options: options) {
        case .accepted: id = job.id
        case .repeated(let earlier): id = earlier
        case .full:
            throw CommandFailure(.failed, "sluice: the queue \(job.priority.rawValue) is full, so the dead letter was kept; retry later")
        case .ownerFull:
            throw CommandFailure(.failed, "sluice: too many jobs of its owner are waiting, so the dead letter was kept; retry later")
        case .conflict, .exists, .sessionLost, .sessionUnsaved:
            throw CommandFailure(.failed, "sluice: the dead letter \(letter.entry) was retried before with a different job")
        }
        _ = try await remove([letter])
        return id
    }

    /// Deletes letters.
    /// - Returns: the number of deleted letters.
    func remove(_ letters: [DeadLetter]) async throws(RedisError) -> Int {
        var count = 0
        for letter in letters {
            count += try await redis.send("XDEL", .string(key(letter.partition)), .string(letter.entry)).integer ?? 0
        }
        return count
    }

    /// Deletes all letters.
    /// - Returns: the number of deleted letters.
    func purge() async throws(RedisError) -> Int {
        var count = 0
        for partition in 0..<deployment.keys.partitions {
            count += try await redis.send("XTRIM", .string(key(partition)), "MAXLEN", 0).integer ?? 0
        }
        return count
    }
}
