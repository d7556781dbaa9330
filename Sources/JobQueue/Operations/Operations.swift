import Contract
import RedisClient

/// What an operator may do to a deployment, whoever carries the wish: the command line, its live view, the gateway's page.
extension JobQueue {
    /// A wish that no worker reads does not lie in wait for a later one of the same name.
    private static let drainExpirySeconds = 3_600

    /// Workers notice at their next beat; what runs goes on, and new jobs are accepted.
    /// - Returns: whether this changed anything.
    package func pause(_ priority: JobClass, _ isPaused: Bool) async throws(RedisError) -> Bool {
        try await redis.send(isPaused ? "SADD" : "SREM", .string(keys.paused), .string(priority.rawValue)).integer == 1
    }

    /// Asks a worker to drain and end; it notices at its next beat.
    /// - Returns: false when no worker of this name lives.
    package func drain(worker name: String) async throws(RedisError) -> Bool {
        guard try await redis.send("EXISTS", .string(keys.worker(name))).integer == 1 else { return false }
        _ = try await redis.send("SET", .string(keys.drain(name)), "1", "EX", .integer(Self.drainExpirySeconds))
        return true
    }
}
