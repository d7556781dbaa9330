import Support

/// Limits on the number and bytes of one tenant's sessions in Redis, across all gateways. Each partition enforces an equal share, since
/// sessions are assigned to partitions at random.
struct SessionQuota: Sendable {
    /// Number of intervals that a session timeout is divided into. Sessions are counted per interval of their expiry, so that expired ones
    /// are subtracted without reading them, at most 1/64 of the session timeout after their expiry.
    private static let intervals = 64

    /// Maximum sessions of one tenant; 0: no limit.
    let sessions: Int
    /// Maximum bytes of all fields, plus 512 per session for Redis' overhead; 0: no limit.
    let bytes: Int
    private let intervalMilliseconds: Int

    init(_ settings: GatewaySettings) {
        sessions = settings.sessionsPerTenant
        bytes = settings.sessionBytesPerTenant
        intervalMilliseconds = max(1_000, settings.sessionTimeout.wholeMilliseconds / Self.intervals)
    }

    /// The part of a limit that one partition enforces, at least 1; 0: no limit.
    static func share(_ limit: Int, of partitions: Int) -> Int { limit == 0 ? 0 : max(1, limit / partitions) }

    /// The end of the quota interval that contains `expiry`. Both are milliseconds since 1970.
    func interval(of expiry: Int) -> Int { (expiry / intervalMilliseconds + 1) * intervalMilliseconds }
}
