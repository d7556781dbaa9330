import RedisClient

/// For how long something is tried again while Redis is away.
struct Patience: Sendable {
    private let total: Duration

    static func seconds(_ count: Int) -> Patience { Patience(total: .seconds(count)) }

    /// Tries until it succeeds; between tries 50 ms, doubling to 2 s, half of it by chance, so that nodes do not all come back at the same
    /// moment.
    /// - Returns: nil when the time is over.
    @discardableResult
    func until<Value: Sendable>(_ body: @Sendable () async throws(RedisError) -> Value) async -> Value? {
        let clock = ContinuousClock()
        let end = clock.now + total
        var pause = 50
        while true {
            do { return try await body() } catch {
                guard clock.now < end, !Task.isCancelled, error.code != .shutdown else { return nil }
                try? await Task.sleep(for: .milliseconds(pause / 2 + Int.random(in: 0...pause / 2)))
                pause = min(pause * 2, 2_000)
            }
        }
    }
}
