import Contract
import Logging
import Testing
import Upstream

@testable import Worker

@Suite struct CircuitBreakerTests {
    private static let second: UInt64 = 1_000_000_000

    @Test func `opens after five consecutive failures`() {
        var breaker = CircuitBreaker()
        for count in 1...4 { #expect(breaker.failed(isProbe: false, at: UInt64(count) * Self.second) == nil) }
        #expect(breaker.admit(at: 5 * Self.second) == .pass)
        #expect(breaker.failed(isProbe: false, at: 5 * Self.second) == 5 * Self.second)
        #expect(breaker.admit(at: 6 * Self.second) == .refused)
    }

    @Test func `a success resets the failure count`() {
        var breaker = CircuitBreaker()
        for _ in 1...4 { _ = breaker.failed(isProbe: false, at: 1) }
        breaker.succeeded()
        for _ in 1...4 { #expect(breaker.failed(isProbe: false, at: 2) == nil) }
        #expect(breaker.failed(isProbe: false, at: 3) != nil)
    }

    @Test func `failures outside the window do not open it`() {
        var breaker = CircuitBreaker()
        for count in 0..<20 { #expect(breaker.failed(isProbe: false, at: UInt64(count) * 8 * Self.second) == nil) }
    }

    @Test func `admits one probe at a time and doubles the pause`() {
        var breaker = CircuitBreaker()
        for _ in 1...5 { _ = breaker.failed(isProbe: false, at: 0) }
        var now = 5 * Self.second
        for pause in [10, 20, 40, 60, 60] as [UInt64] {
            #expect(breaker.admit(at: now - 1) == .refused)
            #expect(breaker.admit(at: now) == .probe)
            #expect(breaker.admit(at: now) == .refused)
            // The failure of a request sent before the breaker opened changes nothing.
            #expect(breaker.failed(isProbe: false, at: now) == nil)
            #expect(breaker.failed(isProbe: true, at: now) == pause * Self.second)
            now += pause * Self.second
        }
        #expect(breaker.admit(at: now) == .probe)
        breaker.probeAbandoned(at: now)
        #expect(breaker.admit(at: now) == .probe)
        breaker.succeeded()
        #expect(breaker.admit(at: now) == .pass && breaker.state == .closed(failures: 0, since: 0))
        for _ in 1...5 { _ = breaker.failed(isProbe: false, at: now) }
        #expect(breaker.state == .open(until: now + 5 * Self.second), "the pause is reset, too")
    }

    @Test func `a token bucket limits requests per minute`() {
        var bucket = TokenBucket(perMinute: 60, now: 0)
        for _ in 0..<60 { #expect(bucket.take(at: 0) == nil) }
        #expect(bucket.take(at: 0) == .seconds(1))
        #expect(bucket.take(at: Self.second / 2) == .milliseconds(500))
        #expect(bucket.take(at: Self.second) == nil)
        #expect(bucket.take(at: Self.second) != nil)
        for _ in 0..<60 { #expect(bucket.take(at: 1_000 * Self.second) == nil) }
        #expect(bucket.take(at: 1_000 * Self.second) != nil)
    }

    // MARK: UpstreamGate

    private static func candidate(_ name: String, model: String = "m", concurrency: Int? = nil, perMinute: Int? = nil)
        -> UpstreamRoute.Candidate
    {
        var upstream = UpstreamConfiguration(name: name, kind: .openai, url: "http://x", key: nil)
        upstream.concurrency = concurrency
        upstream.requestsPerMinute = perMinute
        return UpstreamRoute.Candidate(upstream: upstream, model: model)
    }
    private static func gate() -> UpstreamGate { UpstreamGate(metrics: WorkerMetrics(), logger: Logger(label: "test")) }
    private static func pass(_ admission: UpstreamGate.Admission) -> UpstreamGate.Pass? {
        if case .admitted(let pass) = admission { pass } else { nil }
    }

    @Test func `errors of one model do not affect other models`() throws {
        let gate = Self.gate()
        for _ in 1...5 {
            let pass = try #require(Self.pass(gate.admit(Self.candidate("a"), isForced: false, at: 0)))
            gate.failed(pass, .overloaded, at: 0)
            gate.release(pass, at: 0)
        }
        #expect(Self.pass(gate.admit(Self.candidate("a"), isForced: false, at: 1)) == nil)
        #expect(Self.pass(gate.admit(Self.candidate("a", model: "n"), isForced: false, at: 1)) != nil)
        #expect(Self.pass(gate.admit(Self.candidate("b"), isForced: false, at: 1)) != nil)
        #expect(Self.pass(gate.admit(Self.candidate("a"), isForced: true, at: 1)) != nil)
    }

    @Test func `an unreachable upstream is refused for every model`() throws {
        let gate = Self.gate()
        for number in 1...5 {
            let pass = try #require(Self.pass(gate.admit(Self.candidate("a", model: "m\(number)"), isForced: false, at: 0)))
            gate.failed(pass, .upstreamUnreachable, at: 0)
            gate.release(pass, at: 0)
        }
        #expect(Self.pass(gate.admit(Self.candidate("a", model: "new"), isForced: false, at: 1)) == nil)
        let probe = try #require(Self.pass(gate.admit(Self.candidate("a"), isForced: false, at: 5 * Self.second)))
        #expect(Self.pass(gate.admit(Self.candidate("a"), isForced: false, at: 5 * Self.second)) == nil)
        // A rate-limited request shows that the upstream works.
        gate.failed(probe, .rateLimited, at: 5 * Self.second)
        #expect(Self.pass(gate.admit(Self.candidate("a"), isForced: false, at: 5 * Self.second)) != nil)
    }

    @Test func `a probe without a result lets the next request probe`() throws {
        let gate = Self.gate()
        for _ in 1...5 {
            let pass = try #require(Self.pass(gate.admit(Self.candidate("a"), isForced: false, at: 0)))
            gate.failed(pass, .upstreamUnreachable, at: 0)
            gate.release(pass, at: 0)
        }
        let probe = try #require(Self.pass(gate.admit(Self.candidate("a"), isForced: false, at: 5 * Self.second)))
        gate.release(probe, at: 6 * Self.second)
        #expect(Self.pass(gate.admit(Self.candidate("a"), isForced: false, at: 6 * Self.second)) != nil)
    }

    @Test func `concurrency and rate limits are enforced`() throws {
        let gate = Self.gate()
        let two = Self.candidate("a", concurrency: 2)
        let first = try #require(Self.pass(gate.admit(two, isForced: false, at: 0)))
        #expect(Self.pass(gate.admit(two, isForced: false, at: 0)) != nil)
        #expect(Self.pass(gate.admit(two, isForced: true, at: 0)) == nil, "limits also apply to forced requests")
        gate.release(first, at: 0)
        gate.release(first, at: 0)
        #expect(Self.pass(gate.admit(two, isForced: false, at: 0)) != nil)
        #expect(Self.pass(gate.admit(two, isForced: false, at: 0)) == nil)
        let slow = Self.candidate("b", perMinute: 1)
        #expect(Self.pass(gate.admit(slow, isForced: false, at: 0)) != nil)
        guard case .limited(let wait) = gate.admit(slow, isForced: true, at: 0) else { return #expect(Bool(false)) }
        #expect(wait == .seconds(60))
    }
    @Test func `jobs that wait for a limit are served in order of arrival`() throws {
        let gate = Self.gate()
        let one = Self.candidate("a", concurrency: 1)
        let running = try #require(Self.pass(gate.admit(one, isForced: false, at: 0)))
        var woken: [Int] = []
        let waiters = (0..<3).map { number in UpstreamGate.Waiter { woken.append(number) } }
        for waiter in waiters { #expect(Self.pass(gate.admit(one, isForced: false, for: waiter, at: 0)) == nil) }
        #expect(woken.isEmpty)
        gate.release(running, at: 0)
        #expect(woken == [0])
        #expect(Self.pass(gate.admit(one, isForced: false, at: 0)) == nil, "a newcomer does not overtake those that wait")
        #expect(Self.pass(gate.admit(one, isForced: false, for: waiters[1], at: 0)) == nil)
        let first = try #require(Self.pass(gate.admit(one, isForced: false, for: waiters[0], at: 0)))
        gate.leave(waiters[1])
        gate.release(first, at: 0)
        #expect(woken.last == 2, "the second has left")
        #expect(Self.pass(gate.admit(one, isForced: false, for: waiters[2], at: 0)) != nil)
        #expect(Self.pass(gate.admit(Self.candidate("b"), isForced: false, at: 0)) != nil)
    }

    @Test func `a job whose breaker is open does not hold up those behind it`() throws {
        let gate = Self.gate()
        for _ in 1...5 {
            let pass = try #require(Self.pass(gate.admit(Self.candidate("a", concurrency: 1), isForced: false, at: 0)))
            gate.failed(pass, .overloaded, at: 0)
            gate.release(pass, at: 0)
        }
        let other = Self.candidate("a", model: "n", concurrency: 1)
        let running = try #require(Self.pass(gate.admit(other, isForced: false, at: 0)))
        var woken: [Int] = []
        let waiters = (0..<2).map { number in UpstreamGate.Waiter { woken.append(number) } }
        #expect(Self.pass(gate.admit(Self.candidate("a", concurrency: 1), isForced: false, for: waiters[0], at: 0)) == nil)
        #expect(Self.pass(gate.admit(other, isForced: false, for: waiters[1], at: 0)) == nil)
        gate.release(running, at: 0)
        #expect(woken == [0])
        #expect(Self.pass(gate.admit(Self.candidate("a", concurrency: 1), isForced: false, for: waiters[0], at: 0)) == nil)
        #expect(woken == [0, 1])
        #expect(Self.pass(gate.admit(other, isForced: false, for: waiters[1], at: 0)) != nil)
    }

    @Test func `jobs that wait for a removed upstream try again`() throws {
        let gate = Self.gate()
        let one = Self.candidate("a", concurrency: 1)
        _ = try #require(Self.pass(gate.admit(one, isForced: false, at: 0)))
        var wakes = 0
        let waiter = UpstreamGate.Waiter { wakes += 1 }
        #expect(Self.pass(gate.admit(one, isForced: false, for: waiter, at: 0)) == nil)
        gate.removeAll(except: ["b"])
        #expect(wakes == 1)
        #expect(Self.pass(gate.admit(one, isForced: false, for: waiter, at: 0)) != nil)
    }
}

extension UpstreamGate {
    /// Asks once, without waiting for a limit afterwards.
    fileprivate func admit(_ candidate: UpstreamRoute.Candidate, isForced: Bool, at now: UInt64) -> Admission {
        let waiter = Waiter {}
        defer { leave(waiter) }
        return admit(candidate, isForced: isForced, for: waiter, at: now)
    }
}
