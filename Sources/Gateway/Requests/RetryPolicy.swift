import RedisClient
import Support

/// Retries an operation with jittered back-off until a timeout, for times when Redis is not reachable.
struct RetryPolicy: Sendable {
    private let timeout: Duration

    static func seconds(_ count: Int) -> RetryPolicy { RetryPolicy(timeout: .seconds(count)) }

    /// Runs `body` until it succeeds. The delay between attempts starts at 50 ms and doubles up to 2 s; half of it is random, so that nodes
    /// do not retry at the same moment.
    /// - Returns: nil after the timeout, on cancellation, or when the Redis client was shut down.
    @discardableResult
    func run<Value: Sendable>(_ body: @Sendable () async throws(RedisError) -> Value) async -> Value? {
        let clock = ContinuousClock()
        let deadline = clock.now + timeout
        var backoff = Backoff(from: .milliseconds(50), to: .seconds(2), minimumShare: 0.5)
        while true {
            do { return try await body() } catch {
                guard clock.now < deadline, !Task.isCancelled, error.code != .shutdown else { return nil }
                // Cancellation ends the sleep early; the guard above then stops.
                try? await Task.sleep(for: backoff.next())
            }
        }
    }
}
