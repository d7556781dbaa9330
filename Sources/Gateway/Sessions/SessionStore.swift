import Contract
import JobQueue
import Logging
import NIOCore
import RedisClient

/// Sessions in Redis. Commands are written in the order of the calls, so that a session that was saved before a job is submitted is there
/// before it.
struct SessionStore: Sendable {
    enum Saved: Sendable, Equatable {
        case saved
        /// Without settings and history: the owner's sessions fill their quota.
        case savedInPart
        /// Not written: the owner's sessions fill their quota.
        case overQuota
        /// Another gateway holds the session now.
        case lost
        /// Redis does not know it (any more).
        case missing
        case failed(RedisError)
    }

    struct Change: Sendable {
        var deleted: [String] = []
        var fields: [(name: String, value: String)] = []

        /// Bytes of all names and values.
        var size: Int {
            deleted.reduce(0) { $0 + $1.utf8.count } + fields.reduce(0) { $0 + $1.name.utf8.count + $1.value.utf8.count }
        }
    }

    /// Whether a write may make a session that Redis does not know; then its change holds every field.
    enum Creation: Int, Sendable {
        case no
        /// A new session.
        case withinQuota
        /// A session that Redis lost while its client is here.
        case always
    }

    private static let save = script("session-save", PackageResources.session_save_lua)
    private static let claim = RedisScript(
        name: "session-claim", source: String(decoding: PackageResources.session_claim_lua, as: UTF8.self))
    private static let end = script("session-end", PackageResources.session_end_lua)

    /// - Returns: the script behind the functions that keep quotas.
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

    private func keys(_ id: String, owner: String) -> [String] {
        let partition = keys.partition(of: id)
        return [
            keys.session(id), keys.busySessions(of: gateway, partition: partition), keys.sessionQuota(of: owner, partition: partition),
        ]
    }

    /// - Parameters:
    ///   - expires: milliseconds since 1970.
    ///   - completion: on the event loop.
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
        call(Self.save, keys: keys(id, owner: owner), arguments: arguments) { result in
            switch result {
            case .success(.integer(1)): completion(.saved)
            case .success(.integer(2)): completion(.savedInPart)
            case .success(.integer(-2)): completion(.overQuota)
            case .success(.integer(0)): completion(.lost)
            case .success(.integer(-1)): completion(.missing)
            case .success(let other): completion(.failed(RedisError(.protocolViolation, "session-save answered \(other)")))
            case .failure(let error): completion(.failed(error))
            }
        }
    }

    /// - Parameters:
    ///   - owner: who it must belong to; nil: anyone.
    ///   - holder: the gateway that must hold it; nil: any.
    ///   - completion: on the event loop, with nil when there is no such session.
    func claim(
        _ id: String, owner: String?, holder: String?, completion: @escaping @Sendable (Result<SessionRecord?, RedisError>) -> Void
    ) {
        let arguments: [RedisArgument] = [
            .string(gateway), .string(owner.map { "=" + $0 } ?? ""), .string(holder ?? ""), .string(id),
            .string(keys.busySessionsPrefix(partition: keys.partition(of: id))),
        ]
        call(Self.claim, keys: Array(keys(id, owner: "").prefix(2)), arguments: arguments) { result in
            completion(result.map(SessionRecord.init))
        }
    }

    func end(_ id: String, owner: String, epoch: Int, completion: @escaping @Sendable (RedisError?) -> Void) {
        call(Self.end, keys: keys(id, owner: owner), arguments: [.string(gateway), .integer(epoch), .string(id)]) { result in
            if case .failure(let error) = result { completion(error) } else { completion(nil) }
        }
    }

    /// EVALSHA, and EVAL when Redis does not know the script.
    private func call(
        _ script: RedisScript, keys: [String], arguments: [RedisArgument],
        completion: @escaping @Sendable (Result<RESPValue, RedisError>) -> Void
    ) {
        let tail = [RedisArgument.integer(keys.count)] + keys.map(RedisArgument.string) + arguments
        let redis = redis
        send(["EVALSHA", .string(script.digest)] + tail) { result in
            guard case .failure(let error) = result, error.code == .server, error.message.hasPrefix("NOSCRIPT") else {
                return completion(result)
            }
            Self.send(["EVAL", .string(script.source)] + tail, redis, completion)
        }
    }

    private func send(_ arguments: [RedisArgument], _ completion: @escaping @Sendable (Result<RESPValue, RedisError>) -> Void) {
        Self.send(arguments, redis, completion)
    }

    private static func send(
        _ arguments: [RedisArgument], _ redis: RedisClient, _ completion: @escaping @Sendable (Result<RESPValue, RedisError>) -> Void
    ) {
        var pipeline = RedisPipeline()
        pipeline.append(arguments)
        redis.send(pipeline) { result in
            switch result {
            case .success(let replies):
                switch replies.first {
                case .error(let message): completion(.failure(RedisError(.server, message)))
                case let reply?: completion(.success(reply))
                case nil: completion(.failure(RedisError(.protocolViolation, "no answer")))
                }
            case .failure(let error): completion(.failure(error))
            }
        }
    }
}
