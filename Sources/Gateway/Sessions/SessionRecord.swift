import Contract
import JSONCodec
import NIOCore
import RedisClient
import Support

/// A session as stored in Redis, complete enough for any gateway to continue it.
///
/// Fields of the hash: `owner`, `gateway` (the holder), `epoch` (raised at every change of the holder), `created_ms`, `last_request_ms`,
/// `settings`, `history`, `ended` (JSON), and per running request `r:<request_id>`: `[job id, user's text, speech 0|1]`.
struct SessionRecord: Sendable {
    struct Running: Sendable {
        var id: String
        var jobID: JobID
        /// Nil when it was longer than `textMaximum`.
        var text: String?
        var speaks: Bool
    }

    var owner: String
    /// The epoch before this claim; equal to `epoch` when this gateway already was the holder.
    var previousEpoch: Int
    var epoch: Int
    var createdMilliseconds: Int
    var lastRequestMilliseconds: Int
    var settings: SessionSettings
    var history: JSON
    var ended: [EndedRequest]
    var running: [Running]

    static let requestPrefix = "r:"
    /// Maximum bytes of a user's text stored with a running request.
    static let textMaximum = 64 << 10

    /// Parses the reply of session-claim.lua; nil when there is no such session or its record is unusable.
    init?(_ reply: RESPValue) {
        guard case .array(let values) = reply, let first = values.first?.text, let previous = Int(first) else { return nil }
        var fields: [String: String] = [:]
        var index = 1
        while index + 1 < values.count {
            if let name = values[index].text, let value = values[index + 1].text { fields[name] = value }
            index += 2
        }
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
        settings = SessionSettings(stored: json("settings"))
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
struct EndedRequest: Sendable, Hashable {
    /// Maximum per session.
    static let maximumCount = 64

    var id: String
    var jobID: JobID
    var ending: RelayMachine.Ending

    init(id: String, jobID: JobID, ending: RelayMachine.Ending) {
        self.id = id
        self.jobID = jobID
        self.ending = ending
    }

    /// Restores a stored entry; nil when it is malformed.
    init?(_ json: JSON) {
        guard let id = json[0]?.string, let job = json[1]?.string.flatMap(JobID.init),
            let ending = json[2]?.string.flatMap(RelayMachine.Ending.init)
        else { return nil }
        self.init(id: id, jobID: job, ending: ending)
    }

    /// `[request id, job id, ending]`.
    var json: JSON { [.string(id), .string(jobID.rawValue), .string(ending.rawValue)] }
}

extension RESPValue {
    /// A string or an integer as text; nil for all other replies.
    var text: String? {
        switch self {
        case .bulk(let buffer): String(buffer: buffer)
        case .simple(let text): text
        case .integer(let number): String(number)
        case .null, .error, .array: nil
        }
    }
}
