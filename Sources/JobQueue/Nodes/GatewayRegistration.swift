import Contract
import NIOCore
import RedisClient

/// A gateway's presence in Redis, by which the others notice its death: a heartbeat that expires, its name in the set of gateways, and what
/// it leaves to the others.
package struct GatewayRegistration: Sendable {
    package let name: String
    private let redis: RedisClient
    private let keys: Keys
    private let heartbeat: NodeHeartbeat

    /// - Parameter lease: expiry of the heartbeat. It is renewed every third of it.
    package init(name: String, queue: JobProducer, lease: Duration) {
        self.name = name
        redis = queue.redis
        keys = queue.keys
        heartbeat = NodeHeartbeat(.gateway, name: name, keys: queue.keys, lease: lease)
    }

    /// Number of connections so far to the Redis server with the gateways' heartbeats; changes with each reconnect.
    package var connections: Int { redis.connections(for: keys.nodes) }

    /// Renews the heartbeat with the gateway's current load, and keeps the gateway in the set of all gateways.
    /// - Returns: the error with which Redis rejects writes; nil when it accepts them.
    package func renew(_ load: DeploymentSnapshot.Gateway) async throws(QueueError) -> QueueError? {
        var pipeline = RedisPipeline()
        heartbeat.append(
            [
                ("capacity", String(load.capacity)), ("in_flight", String(load.inFlight)), ("sockets", String(load.sockets)),
                ("draining", load.isDraining ? "1" : "0"), ("version", load.version), ("started", String(load.startedMilliseconds)),
            ], to: &pipeline)
        pipeline.append("SADD", .string(keys.gateways), .string(name))
        return WriteHealth.rejection(in: try await redis.send(pipeline))
    }

    /// Deletes the heartbeat, so that other gateways may adopt the sessions immediately. Waits at most 1 s.
    package func leave() async throws(QueueError) {
        _ = try await redis.send("DEL", .string(heartbeat.key), timeout: .seconds(1))
    }

    /// The names of the other gateways, dead ones included until they are removed.
    package func others() async throws(QueueError) -> [String] {
        try await redis.send("SMEMBERS", .string(keys.gateways)).array?.compactMap(\.string).filter { $0 != name } ?? []
    }

    /// Whether a gateway has a heartbeat.
    package func isAlive(_ other: String) async throws(QueueError) -> Bool {
        try await redis.send("EXISTS", .string(keys.gateway(other))).integer != 0
    }

    /// Removes a dead gateway from the set of all gateways, once nothing of it is left.
    package func remove(_ other: String) async throws(QueueError) {
        _ = try await redis.send("SREM", .string(keys.gateways), .string(other))
    }

    /// A random sample of a gateway's sessions with running requests in one partition.
    package func busySessions(of other: String, partition: Int, atMost count: Int) async throws(QueueError) -> [String] {
        let key = keys.busySessions(of: other, partition: partition)
        return try await redis.send("SRANDMEMBER", .string(key), .integer(count)).array?.compactMap(\.string) ?? []
    }
}
