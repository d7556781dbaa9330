import Contract
import JSONCodec
import Testing
import Upstream

@testable import Worker

@Suite struct GenerationMachineTests {
    private static func machine(retries: Int = 3, upstreams: Int = 1, earlier: Usage? = nil) -> GenerationMachine {
        GenerationMachine(
            policy: .init(retries: retries, backoff: .milliseconds(250)...(.seconds(10)), upstreams: upstreams, promptEstimate: 7),
            earlier: earlier)
    }
    private static func failure(_ code: FailureCode, status: Int? = nil, retryAfter: Duration? = nil) -> UpstreamResult {
        .failed(UpstreamFailure(failure: Failure(code, "x", upstreamStatus: status), retryAfter: retryAfter))
    }
    private func ended(_ action: GenerationMachine.Action?) -> GenerationEvent? {
        guard case .end(let event) = action else { return nil }
        return event
    }

    @Test func `a complete answer ends the job`() {
        var machine = Self.machine()
        #expect(machine.begin() == .dial(0))
        machine.connected()
        #expect(machine.phase == .waiting)
        #expect(machine.produced(chunks: 1) == true)
        #expect(machine.produced(chunks: 1) == false)
        machine.reported(promptTokens: 10, completionTokens: 2)
        machine.finished(.length)
        let end = machine.upstreamEnded(.complete, remaining: .seconds(1), jitter: 1)
        #expect(end == .end(.finished(.length, Usage(promptTokens: 10, completionTokens: 2, estimated: false))))
        #expect(machine.interrupted(Interrupt(id: JobID("j")!, reason: "r"), latencyMicroseconds: 1) == nil)
    }

    @Test func `retries only before the first token`() {
        var machine = Self.machine()
        _ = machine.begin()
        for wait in [Duration.milliseconds(250), .milliseconds(500), .seconds(1)] {
            #expect(machine.upstreamEnded(Self.failure(.upstreamError, status: 500), remaining: .seconds(60), jitter: 1) == .backOff(wait))
            #expect(machine.phase == .backoff)
            #expect(machine.checked() == .dial(0))
        }
        let end = machine.upstreamEnded(Self.failure(.upstreamError, status: 500), remaining: .seconds(60), jitter: 1)
        guard case .failed(let failure, let usage) = ended(end) else { return #expect(Bool(false), "not failed: \(end)") }
        #expect(failure.code == .upstreamError && usage == .none)

        var streaming = Self.machine()
        _ = streaming.begin()
        _ = streaming.produced(chunks: 3)
        let broken = streaming.upstreamEnded(Self.failure(.upstreamDisconnected), remaining: .seconds(60), jitter: 1)
        guard case .failed(_, let spent) = ended(broken) else { return #expect(Bool(false), "not failed: \(broken)") }
        #expect(spent == Usage(promptTokens: 7, completionTokens: 3, estimated: true))
    }

    @Test(arguments: [
        FailureCode.authentication, .permission, .invalidRequest, .modelNotFound, .quotaExhausted, .contentFiltered, .upstreamProtocol,
    ])
    func `does not retry permanent failures`(code: FailureCode) {
        var machine = Self.machine()
        _ = machine.begin()
        #expect(ended(machine.upstreamEnded(Self.failure(code, status: 400), remaining: .seconds(60), jitter: 1)) != nil)
    }

    @Test func `honours Retry-After within the remaining time`() {
        var machine = Self.machine()
        _ = machine.begin()
        let limited = Self.failure(.rateLimited, status: 429, retryAfter: .seconds(5))
        #expect(machine.upstreamEnded(limited, remaining: .seconds(60), jitter: 0) == .backOff(.seconds(5)))
        _ = machine.checked()
        #expect(ended(machine.upstreamEnded(limited, remaining: .seconds(4), jitter: 0)) != nil)
    }

    @Test func `the back-off is capped`() {
        var machine = Self.machine(retries: 20)
        _ = machine.begin()
        var last = GenerationMachine.Action.check
        for _ in 0..<12 {
            last = machine.upstreamEnded(Self.failure(.upstreamUnreachable), remaining: .seconds(600), jitter: 1)
            _ = machine.checked()
        }
        #expect(last == .backOff(.seconds(10)))
    }

    @Test func `uses the next upstream when the retries are exhausted`() {
        var machine = Self.machine(retries: 0, upstreams: 2)
        _ = machine.begin()
        #expect(machine.upstreamEnded(Self.failure(.overloaded, status: 503), remaining: .seconds(60), jitter: 1) == .check)
        #expect(machine.checked() == .dial(1))
        #expect(ended(machine.upstreamEnded(Self.failure(.overloaded, status: 503), remaining: .seconds(60), jitter: 1)) != nil)
    }

    @Test func `waits for the upstream whose limit ends first`() {
        var machine = Self.machine(retries: 1, upstreams: 2)
        _ = machine.begin()
        #expect(machine.limited(wait: .seconds(1)) == .dial(1))
        #expect(machine.limited(wait: .seconds(30)) == .backOff(.seconds(1)))
        #expect(machine.checked() == .dial(0))
        #expect(machine.limited(wait: .seconds(20)) == .dial(1))
        #expect(machine.limited(wait: .seconds(30)) == .backOff(.seconds(20)))
    }

    @Test func `skips upstreams that refuse admission`() {
        var machine = Self.machine(retries: 1, upstreams: 2)
        #expect(machine.begin() == .dial(0) && !machine.ignoresOpenBreaker)
        #expect(machine.refused(jitter: 1) == .dial(1))
        #expect(!machine.ignoresOpenBreaker, "the job has not backed off yet")
        #expect(machine.limited(wait: .seconds(2)) == .backOff(.milliseconds(250)), "the breaker of the first upstream opens earlier")
        // The next round starts at the first upstream.
        #expect(machine.checked() == .dial(0) && !machine.ignoresOpenBreaker)
        #expect(machine.refused(jitter: 1) == .dial(1) && machine.ignoresOpenBreaker)
        // A refused admission does not count as a retry.
        #expect(
            machine.upstreamEnded(Self.failure(.overloaded, status: 503), remaining: .seconds(60), jitter: 1)
                == .backOff(.milliseconds(250)))
        #expect(machine.checked() == .dial(0))
        #expect(
            machine.upstreamEnded(Self.failure(.overloaded, status: 503), remaining: .seconds(60), jitter: 1)
                == .backOff(.milliseconds(250)))
        #expect(machine.checked() == .dial(0))
        #expect(machine.upstreamEnded(Self.failure(.overloaded, status: 503), remaining: .seconds(60), jitter: 1) == .check)
        #expect(machine.checked() == .dial(1))
        #expect(ended(machine.upstreamEnded(Self.failure(.overloaded, status: 503), remaining: .seconds(60), jitter: 1)) != nil)
    }

    @Test func `the job ends when the speech ends`() {
        var machine = Self.machine()
        _ = machine.begin()
        _ = machine.produced(chunks: 1)
        machine.reported(promptTokens: 10, completionTokens: 1)
        machine.finished(.length)
        #expect(machine.speechEnded() == nil, "a speech failure before the end of the text does not end the job")
        #expect(machine.upstreamEnded(.complete, remaining: .seconds(1), jitter: 1, isSpeaking: true) == .speak)
        var other = machine
        #expect(machine.speechEnded() == .end(.finished(.length, Usage(promptTokens: 10, completionTokens: 1, estimated: false))))
        guard
            case .interrupted(let interruption) = ended(other.interrupted(Interrupt(id: JobID("j")!, reason: "R"), latencyMicroseconds: 1))
        else {
            return #expect(Bool(false))
        }
        #expect(interruption.phase == .speaking && interruption.usage == Usage(promptTokens: 10, completionTokens: 1, estimated: false))
    }

    @Test func `chunks after the last reported count are added`() {
        var machine = Self.machine()
        _ = machine.begin()
        _ = machine.produced(chunks: 3)
        machine.reported(promptTokens: 10, completionTokens: 4)
        #expect(machine.usage == Usage(promptTokens: 10, completionTokens: 4, estimated: false))
        _ = machine.produced(chunks: 2)
        #expect(machine.usage == Usage(promptTokens: 10, completionTokens: 6, estimated: true))
        machine.reported(promptTokens: nil, completionTokens: 7)
        #expect(machine.usage == Usage(promptTokens: 10, completionTokens: 7, estimated: false))
        // Only the prompt tokens were reported.
        var other = Self.machine()
        _ = other.begin()
        _ = other.produced(chunks: 2)
        other.reported(promptTokens: 10, completionTokens: nil)
        #expect(other.usage == Usage(promptTokens: 10, completionTokens: 2, estimated: true))
    }

    @Test func `an interrupt ends the job in every phase`() {
        func interrupt(_ machine: inout GenerationMachine) -> Interruption? {
            guard
                case .interrupted(let interruption) = ended(
                    machine.interrupted(Interrupt(id: JobID("j")!, reason: "R"), latencyMicroseconds: 9))
            else { return nil }
            return interruption
        }
        var claimed = Self.machine()
        #expect(interrupt(&claimed) == Interruption(reason: "R", phase: .claimed, usage: .none, latencyMicroseconds: 9))
        var connecting = Self.machine()
        _ = connecting.begin()
        #expect(interrupt(&connecting)?.phase == .connecting)
        var waiting = Self.machine()
        _ = waiting.begin()
        waiting.connected()
        #expect(
            interrupt(&waiting)
                == Interruption(
                    reason: "R", phase: .waiting, usage: Usage(promptTokens: 7, completionTokens: 0, estimated: true),
                    latencyMicroseconds: 9))
        var streaming = Self.machine()
        _ = streaming.begin()
        _ = streaming.produced(chunks: 4)
        #expect(interrupt(&streaming)?.usage == Usage(promptTokens: 7, completionTokens: 4, estimated: true))
        var waitingAgain = Self.machine()
        _ = waitingAgain.begin()
        _ = waitingAgain.upstreamEnded(Self.failure(.overloaded, status: 503), remaining: .seconds(60), jitter: 1)
        #expect(interrupt(&waitingAgain)?.phase == .backoff)
        #expect(waitingAgain.checked() == nil, "no request is sent after the interrupt")
    }

    /// A chunk is a token, unless its words or its length show that it holds several.
    @Test func `estimated tokens follow the text when chunks hold several tokens`() {
        func tokens(_ chunks: [String]) -> Int {
            var machine = Self.machine()
            _ = machine.begin()
            for chunk in chunks {
                _ = machine.produced(chunks: 1)
                machine.produced(text: chunk)
            }
            return machine.usage.completionTokens
        }
        #expect(tokens((0..<100).map { " w\($0)" }) == 100)
        #expect(tokens([String(repeating: "a word ", count: 100)]) == 200)
        #expect(tokens((0..<50).map { " w\(2 * $0) w\(2 * $0 + 1)" }) == 100)
        #expect(tokens(["A", " simulated", " sentence,", " one", " word", " in", " each", " chunk."]) == 8)
        #expect(tokens(["日", "本", "語"]) == 3)
        // What the upstream has reported is not estimated again.
        var machine = Self.machine()
        _ = machine.begin()
        _ = machine.produced(chunks: 1)
        machine.produced(text: String(repeating: "x", count: 400))
        machine.reported(promptTokens: 3, completionTokens: 90)
        #expect(machine.usage == Usage(promptTokens: 3, completionTokens: 90, estimated: false))
        // A tool call is put together from chunks that were counted before.
        machine.produced(call: "get_weather", arguments: #"{"city":"Basel","days":3}"#)
        #expect(machine.usage == Usage(promptTokens: 3, completionTokens: 90, estimated: false))
    }

    @Test func `an interrupt reports delivered and saved tokens`() {
        func end(generated: Int, delivered: Int, maximum: Int?) -> Interruption? {
            var machine = Self.machine()
            _ = machine.begin()
            _ = machine.produced(chunks: generated)
            let interrupt = Interrupt(id: JobID("j")!, reason: "R")
            let action = machine.interrupted(interrupt, latencyMicroseconds: 1, delivered: delivered, maximum: maximum)
            guard case .interrupted(let interruption) = ended(action) else { return nil }
            return interruption
        }
        #expect(end(generated: 7, delivered: 5, maximum: 100)?.deliveredTokens == 5)
        #expect(end(generated: 7, delivered: 5, maximum: 100)?.savedTokens == 93)
        #expect(end(generated: 7, delivered: 9, maximum: 3)?.deliveredTokens == 7)
        #expect(end(generated: 7, delivered: 9, maximum: 3)?.savedTokens == 0)
        #expect(end(generated: 7, delivered: 7, maximum: nil)?.savedTokens == nil)
    }

    /// Numbers from outside must not trap.
    @Test func `token counts are clamped`() {
        var machine = Self.machine(earlier: Usage(promptTokens: 5, completionTokens: 5, estimated: false))
        _ = machine.begin()
        _ = machine.produced(chunks: 1)
        machine.reported(promptTokens: .max, completionTokens: .max)
        _ = machine.produced(chunks: 1)
        #expect(machine.usage.completionTokens == 1_000_000_000_006 && machine.usage.promptTokens == 1_000_000_000_005)
        machine.reported(promptTokens: .min, completionTokens: -1)
        #expect(machine.usage.completionTokens == 5 && machine.usage.promptTokens == 5)
        var job = Job(id: JobID("j")!, priority: .standard, request: JSONObject())
        for (value, maximum) in [(Int.min, nil), (-1, nil), (0, nil), (7, 7), (Int.max, nil)] {
            job.request["max_tokens"] = .integer(value)
            #expect(job.maximumTokens == maximum)
        }
        job.request["max_completion_tokens"] = .null
        job.request["max_tokens"] = 9
        #expect(job.maximumTokens == 9)
    }

    @Test func `a complete text needs no upstream`() {
        var mute = Self.machine(upstreams: 0)
        #expect(ended(mute.textIsComplete(.length, isSpeaking: false)) == .finished(.length, .none))
        var speaking = Self.machine(upstreams: 0)
        #expect(speaking.textIsComplete(.stop, isSpeaking: true) == .speak)
        #expect(speaking.phase == .speaking)
        #expect(ended(speaking.speechEnded()) == .finished(.stop, .none))
    }

    @Test func `the event log gives the minimum usage of a lost worker`() {
        let events: [LoggedEvent] = [.upstream(name: "u", model: "m"), .text(" w10 w11"), .restarted].enumerated().map {
            LoggedEvent(id: EventID(attempt: 1, sequence: $0.offset + 1), event: $0.element)
        }
        #expect(TokenEstimate.logged(events, prompt: 7) == Usage(promptTokens: 7, completionTokens: 2, estimated: true))
        #expect(TokenEstimate.logged([], prompt: 7) == nil)
    }

    @Test func `the usage of earlier attempts is included`() {
        var machine = Self.machine(earlier: Usage(promptTokens: 5, completionTokens: 50, estimated: true))
        _ = machine.begin()
        _ = machine.produced(chunks: 1)
        machine.reported(promptTokens: 10, completionTokens: 20)
        #expect(machine.usage == Usage(promptTokens: 15, completionTokens: 70, estimated: true))
    }

    @Test func `reported details are part of the usage`() {
        var machine = Self.machine(earlier: Usage(promptTokens: 5, completionTokens: 5, estimated: false, cachedTokens: 1))
        _ = machine.begin()
        _ = machine.produced(chunks: 1)
        machine.reported(promptTokens: 10, completionTokens: nil, details: TokenDetails(cached: 4))
        machine.reported(promptTokens: nil, completionTokens: 20, details: TokenDetails(reasoning: .max))
        #expect(machine.usage.cachedTokens == 5 && machine.usage.reasoningTokens == 1_000_000_000_000)
    }

    @Test func `without an upstream the job fails with model_not_found`() {
        var machine = Self.machine(upstreams: 0)
        guard case .failed(let failure, _) = ended(machine.begin()) else { return #expect(Bool(false)) }
        #expect(failure.code == .modelNotFound)
    }
}
