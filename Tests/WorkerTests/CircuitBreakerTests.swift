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

    // MARK: UpstreamGate

    private static func candidate(_ name: String, model: String = "m") -> UpstreamRoute.Candidate {
        UpstreamRoute.Candidate(upstream: UpstreamConfiguration(name: name, kind: .openai, url: "http://x", key: nil), model: model)
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

    @Test func `asking whether a request would be refused reserves no probe`() throws {
        let gate = Self.gate()
        for _ in 1...5 {
            let pass = try #require(Self.pass(gate.admit(Self.candidate("a"), isForced: false, at: 0)))
            gate.failed(pass, .upstreamUnreachable, at: 0)
        }
        #expect(gate.refuses(Self.candidate("a"), isForced: false, at: 1))
        #expect(!gate.refuses(Self.candidate("a"), isForced: true, at: 1))
        for _ in 0..<2 { #expect(!gate.refuses(Self.candidate("a"), isForced: false, at: 5 * Self.second)) }
        #expect(Self.pass(gate.admit(Self.candidate("a"), isForced: false, at: 5 * Self.second)) != nil)
        #expect(gate.refuses(Self.candidate("a"), isForced: false, at: 5 * Self.second))
    }
}
