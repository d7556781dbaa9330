/// How many sessions one tenant may have in Redis, over all gateways, and how many bytes they may take. Each partition holds its share,
/// since sessions are spread over partitions at random.
struct SessionQuota: Sendable {
    /// Sessions are counted by intervals of their expiry, so that those that expired are subtracted without being looked at. The fewer
    /// intervals, the later that happens: at most 1/64 of a session's time after its expiry.
    private static let intervals = 64

    /// 0: no limit.
    let sessions: Int
    /// Bytes of all fields, with 512 a session for what Redis needs beside them. 0: no limit.
    let bytes: Int
    private let intervalMilliseconds: Int

    init(_ settings: GatewaySettings) {
        sessions = settings.sessionsPerTenant
        bytes = settings.sessionBytesPerTenant
        intervalMilliseconds = max(1_000, settings.sessionTimeout.milliseconds / Self.intervals)
    }

    static func share(_ limit: Int, of partitions: Int) -> Int { limit == 0 ? 0 : max(1, limit / partitions) }

    /// The end of the interval in which a session expires, in milliseconds since 1970.
    func interval(of expiry: Int) -> Int { (expiry / intervalMilliseconds + 1) * intervalMilliseconds }
}
