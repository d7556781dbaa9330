import Contract
import RedisClient

/// Operator commands on a deployment, shared by the command line, its live view and the gateway's dashboard.
extension JobProducer {
    /// Expiry of a drain request, so that it does not drain a later worker of the same name.
    private static let drainExpirySeconds = 3_600

    /// Pauses or resumes a class. Workers apply it when they receive the announcement, at the latest at
    /// their next renewal; running jobs continue, and new jobs are still accepted.
    /// - Returns: whether the class was not paused (or not resumed) already.
    package func pause(_ priority: JobClass, _ isPaused: Bool) async throws(RedisError) -> Bool {
        let changed = try await redis.send(isPaused ? "SADD" : "SREM", .string(keys.paused), .string(priority.rawValue)).integer == 1
        try await announce()
        return changed
    }

    /// Requests that a worker drains and exits. The worker reads the request when it receives the announcement, at the
    /// latest at its next renewal.
    /// - Returns: false when no worker of this name is alive.
    package func drain(worker name: String) async throws(RedisError) -> Bool {
        guard try await redis.send("EXISTS", .string(keys.worker(name))).integer == 1 else { return false }
        _ = try await redis.send("SET", .string(keys.drain(name)), "1", "EX", .integer(Self.drainExpirySeconds))
        try await announce()
        return true
    }

    /// Makes workers read the operators' commands.
    private func announce() async throws(RedisError) { _ = try await redis.send("PUBLISH", .string(keys.control), "") }
}
