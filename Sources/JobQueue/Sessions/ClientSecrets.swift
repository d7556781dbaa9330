import Contract
import Crypto
import JSONCodec
import RedisClient
import Support

/// Short-lived credentials of the Realtime API, bound to a tenant and to the configuration of a session. Redis holds their digests only.
package struct ClientSecrets: Sendable {
    /// The rights of a secret's bearer.
    package struct Grant: Sendable, Equatable {
        package var owner: String
        /// The `session` object that the secret was created with.
        package var session: JSON

        package init(owner: String, session: JSON) {
            self.owner = owner
            self.session = session
        }
    }

    private static let prefix = "ek_"
    /// Maximum valid secrets of an owner.
    private static let maximumCount = 1_000

    private let redis: RedisClient
    private let keys: Keys

    package init(queue: JobProducer) {
        redis = queue.redis
        keys = queue.keys
    }

    /// Whether a credential has the form of a secret: `ek_<partition>_<32 hexadecimal digits>`.
    package static func isSecret(_ text: String) -> Bool { partition(of: text) != nil }

    private static func partition(of secret: String) -> Int? {
        guard secret.hasPrefix(prefix), secret.utf8.count <= 64 else { return nil }
        let parts = secret.dropFirst(prefix.count).split(separator: "_", omittingEmptySubsequences: false)
        guard parts.count == 2, parts[1].utf8.count == 32 else { return nil }
        return Int(parts[0])
    }

    private static func digest(_ secret: String) -> String { SHA256.hash(data: Array(secret.utf8)).hexadecimal }

    /// Creates a secret.
    /// - Parameter seconds: until it expires.
    /// - Returns: nil when the owner has too many.
    package func create(_ grant: Grant, seconds: Int, now: Int = WallClock.seconds) async throws(QueueError) -> String? {
        let partition = keys.partition(of: grant.owner)
        var random = SystemRandomNumberGenerator()
        let digits = (0..<16).map { _ in UInt8.random(in: 0...255, using: &random) }.hexadecimal
        let secret = "\(Self.prefix)\(partition)_\(digits)"
        let value: JSON = ["owner": .string(grant.owner), "session": grant.session]
        let digest = Self.digest(secret)
        let answer = try await redis.run(
            Scripts.secretSave,
            keys: [keys.clientSecret(digest, partition: partition), keys.clientSecrets(of: grant.owner, partition: partition)],
            arguments: [
                .string(digest), .string(value.text), .integer(seconds), .integer(now), .integer(Self.maximumCount),
            ])
        return answer.integer == 1 ? secret : nil
    }

    /// The grant of a secret; nil when the secret is unknown or has expired.
    package func grant(of secret: String) async throws(QueueError) -> Grant? {
        guard let partition = Self.partition(of: secret), (0..<keys.partitions).contains(partition) else { return nil }
        let reply = try await redis.send("GET", .string(keys.clientSecret(Self.digest(secret), partition: partition)))
        guard let text = reply.string, let json = try? JSON(parsing: text), let owner = json["owner"]?.string,
            let session = json["session"]
        else { return nil }
        return Grant(owner: owner, session: session)
    }
}
