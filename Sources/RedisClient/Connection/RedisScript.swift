import Crypto
import Support

/// A Lua script that is called by its digest. It publishes by `redis.call('PUBLISH', …)`.
package struct RedisScript: Sendable, Hashable {
    /// For logs.
    package let name: String
    package let source: String
    /// SHA-1 of the source, in hexadecimal.
    package let digest: String
    /// The same script for a cluster: it publishes to sharded channels, by SPUBLISH.
    let shardedSource: String
    let shardedDigest: String

    package init(name: String, source: String) {
        self.name = name
        self.source = source
        digest = Self.digest(of: source)
        shardedSource = source.split(separator: "'PUBLISH'", omittingEmptySubsequences: false).joined(separator: "'SPUBLISH'")
        shardedDigest = Self.digest(of: shardedSource)
    }

    /// EVALSHA identifies scripts by SHA-1; security does not depend on it.
    private static func digest(of source: String) -> String { Insecure.SHA1.hash(data: Array(source.utf8)).hexadecimal }
}
