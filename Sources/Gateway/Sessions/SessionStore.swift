import Contract
import JobQueue
import Logging
import NIOCore
import RedisClient

/// Reads and writes sessions in Redis. Commands are sent in call order on one connection, so a session saved before a job is submitted is
/// also stored before it.
struct SessionStore: Sendable {
    /// The result of a write.
    enum Saved: Sendable, Equatable {
        case saved
        /// Written without settings and history, because the owner's quota is used up.
        case savedInPart
        /// Not written, because the owner's quota is used up.
        case overQuota
        /// Not written, because another gateway holds the session.
        case lost
        /// Not written, because the session does not exist (any more) and creating it was not allowed.
        case missing
        case failed(RedisError)
    }

    /// The fields of one write.
    struct Change: Sendable {
        /// Names of fields to delete.
        var deleted: [String] = []
        var fields: [(name: String, value: String)] = []

        /// Bytes of all names and values.
        var size: Int {
            deleted.reduce(0) { $0 + $1.utf8.count } + fields.reduce(0) { $0 + $1.name.utf8.count + $1.value.utf8.count }
        }
    }

    /// Whether a write may create a session that does not exist. A creating change must contain all fields.
    enum Creation: Int, Sendable {
        case no
        /// For a new session.
        case withinQuota
        /// For a session that Redis lost while this gateway holds it.
        case always
    }

    private static let save = script("session-save", PackageResources.session_save_lua)
    private static let claim = RedisScript(
        name: "session-claim", source: String(decoding: PackageResources.session_claim_lua, as: UTF8.self))
    private static let end = script("session-end", PackageResources.session_end_lua)

    /// - Returns: the script with session-quota.lua prepended.
    private static func script(_ name: String, _ source: [UInt8]) -> RedisScript {
        RedisScript(name: name, source: String(decoding: PackageResources.session_quota_lua + source, as: UTF8.self))
    }

    private let redis: RedisClient
    private let keys: Keys
    private let gateway: String
    private let quota: SessionQuota

    init(redis: RedisClient, keys: Keys, gateway: String, quota: SessionQuota) {
        self.redis = redis
        self.keys = keys
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

    /// Writes fields of a session, if this gateway still holds it with `epoch`.
    /// - Parameters:
    ///   - expires: expiry of the session, in milliseconds since 1970.
    ///   - isBusy: whether the session has running requests.
    ///   - completion: called on the event loop.
    func save(
        _ id: String, owner: String, epoch: Int, expires: Int, isBusy: Bool, creating: Creation, change: Change,
        completion: @escaping @Sendable (Saved) -> Void
    ) {
        var arguments: [RedisArgument] = [
            .string(gateway), .integer(epoch), .integer(expires), .integer(isBusy ? 1 : 0), .integer(creating.rawValue), .string(id),
            .integer(SessionQuota.share(quota.sessions, of: keys.partitions)),
            .integer(SessionQuota.share(quota.bytes, of: keys.partitions)),
            .integer(quota.interval(of: expires)), .integer(change.deleted.count),
        ]
        arguments += change.deleted.map(RedisArgument.string)
        for field in change.fields { arguments += [.string(field.name), .string(field.value)] }
        redis.run(Self.save, keys: keys(id, owner: owner), arguments: arguments) { result in
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
    ///   - completion: called on the event loop, with nil when no session matches.
    func claim(
        _ id: String, owner: String?, holder: String?, completion: @escaping @Sendable (Result<SessionRecord?, RedisError>) -> Void
    ) {
        let arguments: [RedisArgument] = [
            .string(gateway), .string(owner.map { "=" + $0 } ?? ""), .string(holder ?? ""), .string(id),
            .string(keys.busySessionsPrefix(partition: keys.partition(of: id))),
        ]
        redis.run(Self.claim, keys: Array(keys(id, owner: "").prefix(2)), arguments: arguments) { result in
            completion(result.map(SessionRecord.init))
        }
    }

    /// Deletes a session, if this gateway still holds it with `epoch`.
    /// - Parameter completion: called on the event loop; nil means success.
    func end(_ id: String, owner: String, epoch: Int, completion: @escaping @Sendable (RedisError?) -> Void) {
        redis.run(Self.end, keys: keys(id, owner: owner), arguments: [.string(gateway), .integer(epoch), .string(id)]) { result in
            if case .failure(let error) = result { completion(error) } else { completion(nil) }
        }
    }
}
