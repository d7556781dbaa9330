import Contract
import JSONCodec
import RedisClient
import Support

/// A job that is not retried any more. It contains the prompt, also after the job's record has expired.
package struct DeadLetter: Sendable {
    package let partition: Int
    /// The id of the entry in the stream.
    package let entry: String
    let fields: [String: String]

    /// Nil when the entry does not contain a valid job.
    package var job: Job? { fields["job"].flatMap { try? Job(parsing: $0.utf8) } }
    /// The job's id, also of JSON that is no valid job; nil when there is none.
    package var id: String? { job?.id.rawValue ?? fields["job"].flatMap { try? JSON(parsing: $0) }?["id"]?.string }
    package var code: String { fields["code"] ?? "" }
    package var message: String { fields["message"] ?? "" }
    package var crashes: Int { fields["crashes"].flatMap { Int($0)?.boundedCount } ?? 0 }
    /// The time of the entry in milliseconds since 1970.
    package var diedMilliseconds: Int64? { entry.split(separator: "-").first.flatMap { Int64($0) } }

    /// Nil when the reply is not a stream entry.
    init?(partition: Int, _ reply: RESPValue) {
        guard let pair = reply.array, pair.count == 2, let entry = pair[0].string else { return nil }
        self.partition = partition
        self.entry = entry
        fields = pair[1].fields
    }
}

/// Why the job of a dead letter was not submitted again. The letter is kept.
package enum DeadLetterRefusal: Error, Sendable, Equatable {
    /// The letter contains no valid job.
    case invalidJob
    /// The queue of the class has reached its limit.
    case queueFull(JobClass)
    /// The owner's waiting jobs have reached the owner's limit.
    case ownerFull
    /// The owner's tokens of this day are used up.
    case quotaExhausted
    /// The letter was retried before with a different job.
    case conflict
}

extension JobProducer {
    /// Dead letters per command.
    private static let deadLetterPage = 100

    /// The newest dead letters of all partitions, newest first.
    package func deadLetters(limit: Int) async throws(RedisError) -> [DeadLetter] {
        var letters: [DeadLetter] = []
        for partition in 0..<keys.partitions {
            let key = keys.dead(partition: partition)
            let reply = try await redis.send("XREVRANGE", .string(key), "+", "-", "COUNT", .integer(limit))
            letters += (reply.array ?? []).compactMap { DeadLetter(partition: partition, $0) }
        }
        return Array(letters.sorted { Self.died($0) > Self.died($1) }.prefix(limit))
    }

    private static func died(_ letter: DeadLetter) -> Int64 { letter.diedMilliseconds ?? 0 }

    /// Finds a dead letter by the job's id or the entry's id. Reads the letters of all partitions in pages.
    package func deadLetter(_ id: String) async throws(RedisError) -> DeadLetter? {
        for partition in 0..<keys.partitions {
            let key = keys.dead(partition: partition)
            var end = "+"
            while true {
                let reply = try await redis.send(
                    "XREVRANGE", .string(key), .string(end), "-", "COUNT", .integer(Self.deadLetterPage))
                let letters = (reply.array ?? []).compactMap { DeadLetter(partition: partition, $0) }
                if let found = letters.first(where: { $0.id == id || $0.entry == id }) { return found }
                guard letters.count == Self.deadLetterPage, let last = letters.last else { break }
                end = "(" + last.entry
            }
        }
        return nil
    }

    /// Submits the job of a dead letter as a new job and removes the letter.
    ///
    /// The submission's idempotency key is derived from the entry, so a concurrent or repeated retry returns the job of the first one.
    /// - Returns: the new job's id.
    /// - Throws: `DeadLetterRefusal`; `RedisError`.
    package func retry(_ letter: DeadLetter) async throws -> JobID {
        guard var job = letter.job else { throw DeadLetterRefusal.invalidJob }
        let key = "retry-\(letter.partition)-\(letter.entry)"
        // The idempotency key's hash selects the partition, and the new id must be of the same partition.
        let partition = Int(Partition.crc16("\(job.owner ?? ""):\(key)".utf8)) % keys.partitions
        job.retryOf = job.id.rawValue
        job.id = JobID(partition: partition, milliseconds: UInt64(clamping: WallClock.milliseconds))
        // The deadline may have passed, so it must not apply to the retry.
        job.deadlineMilliseconds = nil
        var options = SubmitOptions()
        options.idempotency = (key: key, digest: letter.entry)
        let id: JobID
        switch try await submit(job, options: options) {
        case .accepted: id = job.id
        case .repeated(let earlier): id = earlier
        case .full: throw DeadLetterRefusal.queueFull(job.priority)
        case .ownerFull: throw DeadLetterRefusal.ownerFull
        case .quotaExhausted: throw DeadLetterRefusal.quotaExhausted
        case .conflict, .exists, .sessionLost, .sessionUnsaved: throw DeadLetterRefusal.conflict
        }
        _ = try await removeDeadLetters([letter])
        return id
    }

    /// Deletes dead letters.
    /// - Returns: the number of deleted letters.
    package func removeDeadLetters(_ letters: [DeadLetter]) async throws(RedisError) -> Int {
        var count = 0
        for letter in letters {
            count += try await redis.send("XDEL", .string(keys.dead(partition: letter.partition)), .string(letter.entry)).integer ?? 0
        }
        return count
    }

    /// Deletes all dead letters.
    /// - Returns: the number of deleted letters.
    package func purgeDeadLetters() async throws(RedisError) -> Int {
        var count = 0
        for partition in 0..<keys.partitions {
            count += try await redis.send("XTRIM", .string(keys.dead(partition: partition)), "MAXLEN", 0).integer ?? 0
        }
        return count
    }
}
