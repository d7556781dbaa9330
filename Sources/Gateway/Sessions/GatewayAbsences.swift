/// Which other gateways count as dead, by their missing heartbeats as seen by this one. No I/O.
///
/// A missing heartbeat is only evidence of a dead gateway while Redis answers this gateway without interruption: an outage prevents all
/// heartbeats, Redis may have lost them, and the others may reconnect later than this one. So after a reconnect of its own, a gateway
/// declares no other one dead for a whole lease.
struct GatewayAbsences {
    /// Consecutive rounds in which a gateway must be absent before it counts as dead. More than one, because all heartbeat keys are missing
    /// for a short time when Redis is emptied.
    private static let rounds = 2

    private struct Absence {
        var rounds = 0
        let since: ContinuousClock.Instant
    }

    private let lease: Duration
    private var absences: [String: Absence] = [:]
    private var connection: Int?
    /// Since when Redis has answered on the same connection; nil after a failed heartbeat.
    private var answeredSince: ContinuousClock.Instant?

    init(lease: Duration) { self.lease = lease }

    /// Starts the observation again, after a failed heartbeat.
    mutating func reset() {
        absences = [:]
        answeredSince = nil
    }

    /// Begins a round of observation, after a successful heartbeat.
    /// - Parameters:
    ///   - others: the names of all other gateways; the absences of further ones are forgotten.
    ///   - connection: the number of the connection to Redis; see `RedisClient.connections`.
    mutating func beginRound(of others: [String], connection: Int, now: ContinuousClock.Instant) {
        if connection != self.connection { reset() }
        self.connection = connection
        answeredSince = answeredSince ?? now
        absences = absences.filter { others.contains($0.key) }
    }

    /// Records that a gateway has a heartbeat, or that nothing is left of it.
    mutating func end(_ name: String) { absences[name] = nil }

    /// Records that a gateway has no heartbeat in this round.
    /// - Returns: the duration of its absence if it counts as dead; else nil.
    mutating func observe(_ name: String, now: ContinuousClock.Instant) -> Duration? {
        var absence = absences[name] ?? Absence(since: now)
        absence.rounds += 1
        absences[name] = absence
        guard absence.rounds >= Self.rounds, let answeredSince, now - answeredSince >= lease else { return nil }
        return now - absence.since
    }
}
