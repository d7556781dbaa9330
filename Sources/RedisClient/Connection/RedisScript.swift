import Crypto
import Support

/// A Lua script that is called by its digest. It publishes by `redis.call('PUBLISH', …)`.
package struct RedisScript: Sendable, Hashable {
    /// For logs.
    package let name: String
    package let source: String
    /// SHA-1 of the source, in hexadecimal.
    package let digest: String
    /// The same script for a cluster: it publishes to sharded channels, by SPUBLISH, and it removes the last key, which does not exist, see
    /// `HashSlot.absentKey`.
    ///
    /// While a slot moves, a node refuses a command with several keys (`TRYAGAIN`) unless it has all of them. So the missing key makes it refuse
    /// every script before its first command. Otherwise a script that uses further keys, whose names it computes, could fail
    /// half-way with `Script attempted to access a non local key`, or create a key on the one node while the other still has it.
    let shardedSource: String
    let shardedDigest: String

    package init(name: String, source: String) {
        self.name = name
        self.source = source
        digest = Self.digest(of: source)
        shardedSource =
            "if string.find(KEYS[#KEYS] or '', ':-absent-', 1, true) then table.remove(KEYS) end\n"
            + source.split(separator: "'PUBLISH'", omittingEmptySubsequences: false).joined(separator: "'SPUBLISH'")
        shardedDigest = Self.digest(of: shardedSource)
    }

    /// EVALSHA identifies scripts by SHA-1; security does not depend on it.
    private static func digest(of source: String) -> String { Insecure.SHA1.hash(data: Array(source.utf8)).hexadecimal }
}
