import Contract
import NIOCore
import RedisClient
import Support

/// A node's heartbeat: a hash that expires unless the node writes it again.
package struct NodeHeartbeat: Sendable {
    package enum Kind: Sendable { case worker, gateway }

    package let key: String
    /// Time for which a node counts as alive without another heartbeat.
    package let expiry: Duration

    /// - Parameter lease: the expiry of the hash. The node writes a heartbeat every third of it.
    package init(_ kind: Kind, name: String, keys: Keys, lease: Duration) {
        key = kind == .worker ? keys.worker(name) : keys.gateway(name)
        expiry = lease
    }

    /// Appends the commands of one heartbeat: two commands.
    package func append(_ fields: [(name: String, value: String)], to pipeline: inout RedisPipeline) {
        pipeline.append(["HSET", .string(key)] + fields.flatMap { [.string($0.name), .string($0.value)] })
        pipeline.append("PEXPIRE", .string(key), .integer(max(1, expiry.wholeMilliseconds)))
    }
}
