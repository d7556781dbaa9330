import Contract
import JSONCodec
import RedisClient
import Support

/// A session as stored in Redis, complete enough for any gateway to continue it.
///
/// Fields of the hash: `owner`, `gateway` (the holder), `epoch` (raised at every change of the holder), `created_ms`, `last_request_ms`,
/// `settings`, `history`, `ended` (JSON), and per running request `r:<request_id>`: `[job id, user's text, speech 0|1]`. The scripts add
/// `quota`.
package struct SessionRecord: Sendable {
    /// A request whose job has not ended.
    package struct Running: Sendable, Hashable {
        package var id: String
        package var jobID: JobID
        /// The user's message; nil when it was longer than `textMaximum`.
        package var text: String?
        /// Whether the answer includes speech.
        package var speaks: Bool

        package init(id: String, jobID: JobID, text: String?, speaks: Bool) {
            self.id = id
            self.jobID = jobID
            self.text = text
            self.speaks = speaks
        }

        /// The value of the request's field.
        var json: JSON {
            let kept = text.flatMap { $0.utf8.count <= SessionRecord.textMaximum ? $0 : nil }
            return [.string(jobID.rawValue), kept.map(JSON.string) ?? .null, .integer(speaks ? 1 : 0)]
        }
    }

    package var owner: String
    /// The epoch before this claim; equal to `epoch` when this gateway already was the holder.
    package var previousEpoch: Int
    package var epoch: Int
    /// Milliseconds since 1970, at most the current time; so is `lastRequestMilliseconds`.
    package var createdMilliseconds: Int
    package var lastRequestMilliseconds: Int
    /// As the gateway stored it; null when it is missing or not JSON. So is `history`.
    package var settings: JSON
    package var history: JSON
    /// Oldest first.
    package var ended: [EndedRequest]
    package var running: [Running]

    private static let requestPrefix = "r:"
    /// Maximum bytes of a user's text stored with a running request.
    private static let textMaximum = 64 << 10

    /// The name of a running request's field.
    package static func field(of requestID: String) -> String { requestPrefix + requestID }

    /// Parses the reply of session_claim.lua; nil when there is no such session or its record is unusable.
    package init?(_ reply: RESPValue) {
        guard case .array(let values) = reply, let first = values.first?.string, let previous = Int(first) else { return nil }
        let fields = RESPValue.array(Array(values.dropFirst())).fields
        guard let owner = fields["owner"], let epoch = fields["epoch"].flatMap({ Int($0) }) else { return nil }
        func json(_ name: String) -> JSON { fields[name].flatMap { try? JSON(parsing: $0) } ?? .null }
        self.owner = owner
        previousEpoch = previous
        self.epoch = epoch
        // Clamp times to the range from 0 to now, so that arithmetic cannot overflow and the session does expire.
        let now = WallClock.milliseconds
        func time(_ name: String) -> Int? { fields[name].flatMap { Int($0) }.map { min(max($0, 0), now) } }
        createdMilliseconds = time("created_ms") ?? now
        lastRequestMilliseconds = time("last_request_ms") ?? createdMilliseconds
        settings = json("settings")
        history = json("history")
        ended = (json("ended").array ?? []).suffix(EndedRequest.maximumCount).compactMap(EndedRequest.init)
        running = fields.compactMap { name, value in
            guard name.hasPrefix(Self.requestPrefix), let json = try? JSON(parsing: value), let job = json[0]?.string.flatMap(JobID.init)
            else { return nil }
            return Running(
                id: String(name.dropFirst(Self.requestPrefix.count)), jobID: job, text: json[1]?.string, speaks: json[2]?.integer == 1)
        }
    }
}

/// An ended request, kept so that later INTERRUPT and RESUME messages can be answered.
package struct EndedRequest: Sendable, Hashable {
    /// How a request ended: the state of its job.
    package enum Ending: String, Sendable, Hashable {
        case finished, interrupted, failed
    }

    /// Maximum per session.
    package static let maximumCount = 64

    package var id: String
    package var jobID: JobID
    package var ending: Ending

    package init(id: String, jobID: JobID, ending: Ending) {
        self.id = id
        self.jobID = jobID
        self.ending = ending
    }

    /// Restores a stored entry; nil when it is malformed.
    init?(_ json: JSON) {
        guard let id = json[0]?.string, let job = json[1]?.string.flatMap(JobID.init),
            let ending = json[2]?.string.flatMap(Ending.init)
        else { return nil }
        self.init(id: id, jobID: job, ending: ending)
    }

    /// `[request id, job id, ending]`.
    var json: JSON { [.string(id), .string(jobID.rawValue), .string(ending.rawValue)] }
}
