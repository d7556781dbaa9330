import Contract
import JSONCodec
import JobQueue
import Observability
import RedisClient
import Support

/// A job that was given up, with what was asked: after its record has expired, the only place that still holds the prompt.
struct DeadLetter: Sendable {
    let partition: Int
    /// Of the entry in the stream.
    let entry: String
    let fields: [String: String]

    var job: Job? { fields["job"].flatMap { try? Job(parsing: $0.utf8) } }
    /// Of the job, where it can be told.
    var id: String? { job?.id.rawValue ?? fields["job"].flatMap { try? JSON(parsing: $0) }?["id"]?.string }
    var code: String { fields["code"] ?? "" }
    var message: String { fields["message"] ?? "" }
    var crashes: Int { fields["crashes"].flatMap { Int($0)?.boundedCount } ?? 0 }
    var died: Timestamp? { entry.split(separator: "-").first.flatMap { Int64($0) }.map { Timestamp(milliseconds: $0) } }

    init?(partition: Int, _ reply: RESPValue) {
        guard let pair = reply.array, pair.count == 2, let entry = pair[0].string else { return nil }
        self.partition = partition
        self.entry = entry
        fields = pair[1].fields
    }

    /// Never the prompt: a listing is shown around.
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
    private static let page = 100

    let deployment: Deployment

    private var redis: RedisClient { deployment.redis }

    private func key(_ partition: Int) -> String { deployment.keys.dead(partition: partition) }

    /// The newest first.
    func list(limit: Int) async throws(RedisError) -> [DeadLetter] {
        var letters: [DeadLetter] = []
        for partition in 0..<deployment.keys.partitions {
            let reply = try await redis.send("XREVRANGE", .string(key(partition)), "+", "-", "COUNT", .integer(limit))
            letters += (reply.array ?? []).compactMap { DeadLetter(partition: partition, $0) }
        }
        return Array(letters.sorted { ($0.died?.milliseconds ?? 0) > ($1.died?.milliseconds ?? 0) }.prefix(limit))
    }

    /// By the job's id, or by the entry's as a listing shows it. Reads the letters page by page.
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

    /// Makes a new job of a dead one and removes its letter.
    ///
    /// A second operator, or a second try after a lost answer, gets the job that the first one made: the letter's place is the submission's
    /// idempotency key.
    /// - Returns: the new job's id.
    func retry(_ letter: DeadLetter) async throws -> JobID {
        guard var job = letter.job else {
            throw CommandFailure(.failed, "sluice: the dead letter \(letter.entry) holds no job that could be retried: \(letter.message)")
        }
        let key = "retry-\(letter.partition)-\(letter.entry)"
        // An idempotency key lies in the partition of its own hash, and the job's id must be made there.
        let partition = Int(Partition.crc16("\(job.owner ?? ""):\(key)".utf8)) % deployment.keys.partitions
        job.retryOf = job.id.rawValue
        job.id = JobID(partition: partition, milliseconds: UInt64(Timestamp.now.milliseconds))
        // Its time was over when it died or soon after; the operator wants it all the same.
        job.deadlineMilliseconds = nil
        var options = SubmitOptions()
        options.idempotency = (key: key, digest: letter.entry)
        let id: JobID
        switch try await deployment.queue.submit(job, options: options) {
        case .accepted: id = job.id
        case .repeated(let earlier): id = earlier
        case .full: throw CommandFailure(.failed, "sluice: the queue \(job.priority.rawValue) is full; the dead letter stays where it is")
        case .ownerFull:
            throw CommandFailure(.failed, "sluice: too many jobs of its owner are waiting; the dead letter stays where it is")
        case .conflict, .exists, .sessionLost, .sessionUnsaved:
            throw CommandFailure(.failed, "sluice: the dead letter \(letter.entry) was retried as something else before")
        }
        _ = try await remove([letter])
        return id
    }

    /// How many there were.
    func remove(_ letters: [DeadLetter]) async throws(RedisError) -> Int {
        var count = 0
        for letter in letters {
            count += try await redis.send("XDEL", .string(key(letter.partition)), .string(letter.entry)).integer ?? 0
        }
        return count
    }

    /// Removes them all; how many there were.
    func purge() async throws(RedisError) -> Int {
        var count = 0
        for partition in 0..<deployment.keys.partitions {
            count += try await redis.send("XTRIM", .string(key(partition)), "MAXLEN", 0).integer ?? 0
        }
        return count
    }
}
