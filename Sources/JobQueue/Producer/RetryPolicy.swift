import RedisClient
import Support

/// Retries an operation with jittered back-off until a timeout, for times when Redis is not reachable.
package struct RetryPolicy: Sendable {
    private let timeout: Duration

    /// - Parameter count: seconds after the first attempt in which further ones are started; 0 for a single attempt.
    package static func seconds(_ count: Int) -> RetryPolicy { RetryPolicy(timeout: .seconds(count)) }

    /// Runs `body` until it succeeds. The delay between attempts starts at 50 ms and doubles up to 2 s; half of it is random, so that nodes
    /// do not retry at the same moment.
    /// - Returns: nil after the timeout, on cancellation, or when the connection was shut down.
    @discardableResult
    package func run<Value: Sendable>(_ body: () async throws(QueueError) -> Value) async -> Value? {
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
