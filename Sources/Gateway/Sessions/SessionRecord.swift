import Contract
import JSONCodec
import NIOCore
import RedisClient

/// A session's hash in Redis: what any gateway needs to go on with it.
///
/// Fields: `owner`, `gateway`, `epoch` (raised by every change of hands), `created_ms`, `last_request_ms`, `settings`, `history`, `ended`
/// (JSON), and one `r:<request_id>` a running request: `[job id, user's text, speech 0|1]`.
struct SessionRecord: Sendable {
    struct Running: Sendable {
        var id: String
        var jobID: JobID
        /// Nil when it was too long to be kept.
        var text: String?
        var speaks: Bool
    }

    var owner: String
    /// Before it was claimed, and now.
    var previousEpoch: Int
    var epoch: Int
    var createdMilliseconds: Int
    var lastRequestMilliseconds: Int
    var settings: SessionSettings
    var history: JSON
    var ended: [EndedRequest]
    var running: [Running]

    static let requestPrefix = "r:"
    /// Bytes of a user's text that are kept beside a running request.
    static let textMaximum = 64 << 10

    /// - Parameter reply: what session-claim.lua answered.
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
        // Times are bounded by the present: arithmetic on them neither overflows nor keeps a session for ever.
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

/// A request that is over, remembered for a while so that later messages about it are answered by its state.
struct EndedRequest: Sendable, Hashable {
    static let maximumCount = 64

    var id: String
    var jobID: JobID
    var ending: RelayMachine.Ending

    init(id: String, jobID: JobID, ending: RelayMachine.Ending) {
        self.id = id
        self.jobID = jobID
        self.ending = ending
    }

    init?(_ json: JSON) {
        guard let id = json[0]?.string, let job = json[1]?.string.flatMap(JobID.init),
            let ending = json[2]?.string.flatMap(RelayMachine.Ending.init)
        else { return nil }
        self.init(id: id, jobID: job, ending: ending)
    }

    var json: JSON { [.string(id), .string(jobID.rawValue), .string(ending.rawValue)] }
}

extension RESPValue {
    var text: String? {
        switch self {
        case .bulk(let buffer): String(buffer: buffer)
        case .simple(let text): text
        case .integer(let number): String(number)
        case .null, .error, .array: nil
        }
    }
}
