import Testing

@testable import Gateway

/// When a gateway without a heartbeat counts as dead. The lease is 15 s, a round 5 s.
@Suite struct GatewayAbsencesTests {
    private let begin = ContinuousClock.now
    private var absences = GatewayAbsences(lease: .seconds(15))

    private mutating func round(at second: Int, connection: Int = 1, isAbsent: Bool = true) -> Duration? {
        let now = begin + .seconds(second)
        absences.beginRound(of: ["g2"], connection: connection, now: now)
        if isAbsent { return absences.observe("g2", now: now) }
        absences.end("g2")
        return nil
    }

    @Test mutating func `a gateway is dead in the second round without a heartbeat`() {
        for second in [0, 5, 10, 15] { #expect(round(at: second, isAbsent: false) == nil) }
        #expect(round(at: 20) == nil)
        #expect(round(at: 25) == .seconds(5))
        #expect(round(at: 30) == .seconds(10))
        #expect(round(at: 35, isAbsent: false) == nil)
        #expect(round(at: 40) == nil)
    }

    /// The own heartbeat waited for the connection and succeeded, so only the number of the connection shows the outage. The other gateway may
    /// reconnect later.
    @Test mutating func `no gateway is dead for a lease after a reconnect`() {
        for second in [0, 5, 10, 15] { #expect(round(at: second, isAbsent: false) == nil) }
        for second in [20, 25, 30, 34] { #expect(round(at: second, connection: 2) == nil, "at \(second) s") }
        #expect(round(at: 35, connection: 2) == .seconds(15))
    }

    @Test mutating func `no gateway is dead for a lease after a failed heartbeat`() {
        for second in [0, 5, 10, 15, 20] { #expect(round(at: second, isAbsent: false) == nil) }
        absences.reset()
        for second in [26, 31, 36] { #expect(round(at: second) == nil, "at \(second) s") }
        #expect(round(at: 41) == .seconds(15))
    }

    @Test mutating func `a gateway that was removed from the list is forgotten`() {
        for second in [0, 5, 10, 15] { _ = round(at: second) }
        absences.beginRound(of: [], connection: 1, now: begin + .seconds(20))
        #expect(round(at: 25) == nil)
    }
}
