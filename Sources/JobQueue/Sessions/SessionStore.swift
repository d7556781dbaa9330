import Contract
import JSONCodec
import NIOCore
import RedisClient
import Support

/// The fields of a session that one write changes.
package struct SessionChange: Sendable {
    /// Names of fields to delete.
    private(set) var deleted: [String] = []
    private(set) var fields: [(name: String, value: String)] = []

    /// A change without fields. Writing it checks whether the gateway still holds the session, and renews the expiry.
    package init() {}

    /// Bytes of all names and values.
    package var size: Int {
        deleted.reduce(0) { $0 + $1.utf8.count } + fields.reduce(0) { $0 + $1.name.utf8.count + $1.value.utf8.count }
    }

    /// Sets what never changes during a session. Required for a session that does not exist.
    package mutating func setOrigin(owner: String, createdMilliseconds: Int) {
        fields.append(("owner", owner))
        fields.append(("created_ms", String(createdMilliseconds)))
    }

    /// - Parameter milliseconds: since 1970.
    package mutating func setLastRequest(_ milliseconds: Int) { fields.append(("last_request_ms", String(milliseconds))) }

    /// - Parameter json: the settings as JSON.
    package mutating func setSettings(_ json: String) { fields.append(("settings", json)) }
    package mutating func setHistory(_ json: JSON) { fields.append(("history", json.text)) }
    package mutating func setEnded(_ requests: [EndedRequest]) { fields.append(("ended", JSON.array(requests.map(\.json)).text)) }

    /// Adds a running request.
    package mutating func add(_ request: SessionRecord.Running) {
        fields.append((SessionRecord.field(of: request.id), request.json.text))
    }

    /// Deletes running requests that have ended.
    package mutating func remove(_ requestIDs: some Sequence<String>) { deleted += requestIDs.map(SessionRecord.field) }
}

/// Limits on the number and bytes of one tenant's sessions in Redis, across all gateways. Each partition enforces an equal share, since
/// sessions are assigned to partitions at random.
package struct SessionQuota: Sendable {
    /// Number of intervals that a session timeout is divided into. Sessions are counted per interval of their expiry, so that expired ones
    /// are subtracted without reading them, at most 1/64 of the session timeout after their expiry.
    private static let intervals = 64

    private let sessions: Int
    private let bytes: Int
    private let intervalMilliseconds: Int

    /// - Parameters:
    ///   - sessions: maximum sessions of one tenant; 0: no limit.
    ///   - bytes: maximum bytes of all fields, plus 512 per session for Redis' overhead; 0: no limit.
    ///   - timeout: time from the last request to the expiry of a session.
    package init(sessions: Int, bytes: Int, timeout: Duration) {
        self.sessions = sessions
        self.bytes = bytes
        intervalMilliseconds = max(1_000, timeout.wholeMilliseconds / Self.intervals)
    }

    /// The arguments 7 to 9 of session_save.lua.
    /// - Parameter expiry: expiry of the session, in milliseconds since 1970.
    fileprivate func arguments(partitions: Int, expiry: Int) -> [RedisArgument] {
        [
            .integer(Self.share(sessions, of: partitions)), .integer(Self.share(bytes, of: partitions)),
            .integer((expiry / intervalMilliseconds + 1) * intervalMilliseconds),
        ]
    }

    /// The part of a limit that one partition enforces, at least 1; 0: no limit.
    private static func share(_ limit: Int, of partitions: Int) -> Int { limit == 0 ? 0 : max(1, limit / partitions) }
}

/// Reads and writes the sessions that a gateway holds.
///
/// Methods must be called on the event loop of the producer's connection, and completions run there, exactly once. Commands are sent in call
/// order on that connection, so a session saved before a job is submitted is also stored before it.
package struct SessionStore: Sendable {
    /// The result of a write.
    package enum Saved: Sendable, Equatable {
        case saved
        /// Written without settings and history, because the owner's quota is used up.
        case savedInPart
        /// Not written, because the owner's quota is used up.
        case overQuota
        /// Not written, because another gateway holds the session.
        case lost
        /// Not written, because the session does not exist (any more) and creating it was not allowed.
        case missing
        case failed(QueueError)
    }

    /// Whether a write may create a session that does not exist. A creating change must contain all fields.
    package enum Creation: Int, Sendable {
        case no
        /// For a new session.
        case withinQuota
        /// For a session that Redis lost while this gateway holds it.
        case always
    }

    private let redis: RedisClient
    private let keys: Keys
    private let gateway: String
    private let quota: SessionQuota

    /// - Parameter gateway: name of the gateway that holds the sessions.
    package init(queue: JobProducer, gateway: String, quota: SessionQuota) {
        redis = queue.redis
        keys = queue.keys
        self.gateway = gateway
        self.quota = quota
    }

    /// KEYS of the scripts, in order.
    private func keys(_ id: String, owner: String) -> [String] {
        let partition = keys.partition(of: id)
        return [
            keys.session(id), keys.busySessions(of: gateway, partition: partition), keys.sessionQuota(of: owner, partition: partition),
        ]
    }

    /// The partition that an id states; nil for a malformed id or a partition that the deployment does not have. Keys must not be built from
    /// such an id.
    package func partition(of id: String) -> Int? {
        let partition = keys.partition(of: id)
        return JobID(id) != nil && (0..<keys.partitions).contains(partition) ? partition : nil
    }

    /// Writes fields of a session, if this gateway still holds it with `epoch`.
    /// - Parameters:
    ///   - expires: expiry of the session, in milliseconds since 1970.
    ///   - isBusy: whether the session has running requests.
    package func save(
        _ id: String, owner: String, epoch: Int, expires: Int, isBusy: Bool, creating: Creation, change: SessionChange,
        completion: @escaping (Saved) -> Void
    ) {
        var arguments: [RedisArgument] = [
            .string(gateway), .integer(epoch), .integer(expires), .integer(isBusy ? 1 : 0), .integer(creating.rawValue), .string(id),
        ]
        arguments += quota.arguments(partitions: keys.partitions, expiry: expires)
        arguments.append(.integer(change.deleted.count))
        arguments += change.deleted.map(RedisArgument.string)
        for field in change.fields { arguments += [.string(field.name), .string(field.value)] }
        run(Scripts.sessionSave, keys: keys(id, owner: owner), arguments: arguments) { result in
            switch result {
            case .success(.integer(1)): completion(.saved)
            case .success(.integer(2)): completion(.savedInPart)
            case .success(.integer(-2)): completion(.overQuota)
            case .success(.integer(0)): completion(.lost)
            case .success(.integer(-1)): completion(.missing)
            case .success(let other): completion(.failed(RedisError(.protocolViolation, "unexpected reply of session-save: \(other)")))
            case .failure(let error): completion(.failed(error))
            }
        }
    }

    /// Makes this gateway the holder of a session and reads it.
    /// - Parameters:
    ///   - owner: required owner; nil: any.
    ///   - holder: required holding gateway; nil: any.
    ///   - completion: receives nil when no session matches.
    package func claim(
        _ id: String, owner: String?, holder: String?, completion: @escaping (Result<SessionRecord?, QueueError>) -> Void
    ) {
        let arguments: [RedisArgument] = [
            .string(gateway), .string(owner.map { "=" + $0 } ?? ""), .string(holder ?? ""), .string(id),
            .string(keys.busySessionsPrefix(partition: keys.partition(of: id))),
        ]
        run(Scripts.sessionClaim, keys: Array(keys(id, owner: "").prefix(2)), arguments: arguments) { result in
            completion(result.map(SessionRecord.init))
        }
    }

    /// Deletes a session, if this gateway still holds it with `epoch`.
    /// - Parameter completion: receives nil for success.
    package func end(_ id: String, owner: String, epoch: Int, completion: @escaping (QueueError?) -> Void) {
        run(Scripts.sessionEnd, keys: keys(id, owner: owner), arguments: [.string(gateway), .integer(epoch), .string(id)]) { result in
            if case .failure(let error) = result { completion(error) } else { completion(nil) }
        }
    }

    /// Runs a script without a task, so that its command is sent before anything that the caller sends next.
    private func run(
        _ script: RedisScript, keys: [String], arguments: [RedisArgument], completion: @escaping (Result<RESPValue, QueueError>) -> Void
    ) {
        let completion = NIOLoopBound(completion, eventLoop: redis.eventLoop)
        redis.run(script, keys: keys, arguments: arguments) { completion.value($0) }
    }
}
