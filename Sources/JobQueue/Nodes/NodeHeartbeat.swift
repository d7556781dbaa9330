import Contract
import NIOCore
import RedisClient

extension JobConsumer {
    /// Lives that end without a word leave their name in the list so many leases longer.
    private static let leasesListed = 4

    /// Puts this worker into the list of all and takes those out that were not heard of for long: two commands.
    package func listWorker(in pipeline: inout RedisPipeline, now milliseconds: Int) {
        let oldest = milliseconds - Self.leasesListed * settings.leaseMilliseconds
        pipeline.append("ZADD", .string(keys.workers), .integer(milliseconds), .string(worker))
        pipeline.append("ZREMRANGEBYSCORE", .string(keys.workers), "-inf", .integer(oldest))
    }
}

/// A node's sign of life: a hash that expires when it is not written again.
package struct NodeHeartbeat: Sendable {
    package enum Kind: Sendable { case worker, gateway }

    package let key: String
    /// How long a node counts as alive without another beat.
    package let expiry: Duration

    /// - Parameter lease: the node beats each third of it and counts as gone after a whole one.
    package init(_ kind: Kind, name: String, keys: Keys, lease: Duration) {
        key = kind == .worker ? keys.worker(name) : keys.gateway(name)
        expiry = lease
    }

    /// Appends what one beat writes: two commands.
    package func append(_ fields: [(name: String, value: String)], to pipeline: inout RedisPipeline) {
        let milliseconds = Int(expiry.components.seconds) * 1_000 + Int(expiry.components.attoseconds / 1_000_000_000_000_000)
        pipeline.append(["HSET", .string(key)] + fields.flatMap { [.string($0.name), .string($0.value)] })
        pipeline.append("PEXPIRE", .string(key), .integer(max(1, milliseconds)))
    }
}
