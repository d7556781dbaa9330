import Contract
import Histogram
import NIOCore

/// What the measuring client knows of the streams that it reads. Stands on its event loop: a message costs a scan and a few additions, no
/// task and no decoding.
actor StreamReader {
    struct Stream: Sendable {
        /// As its reader learnt it, for the simulator's list.
        var job: String
        /// Tokens that arrived.
        var tokens = 0
        /// CLOCK_MONOTONIC ns; nil: not yet.
        var firstToken: UInt64?
        var acknowledged: UInt64?
        var ended: UInt64?
        /// When the simulator's first token was due; 0: not known.
        var zero: UInt64 = 0
        var isFollowed = false
        var hasFailed = false
        /// A token came twice, or one was left out.
        var isBroken = false
    }

    private nonisolated let eventLoop: any EventLoop
    private let gap: UInt64
    private(set) var streams: [Stream]
    private(set) var tokens = 0
    private(set) var messages = 0
    /// From a token's due time to its arrival, ns, while `isMeasuring`.
    private(set) var lateness = Histogram<UInt64>(highestTrackableValue: 120_000_000_000, numberOfSignificantValueDigits: .three)
    private var isMeasuring = false
    /// Who waits for a stream's end.
    private var waiting: [Int: CheckedContinuation<Void, Never>] = [:]

    nonisolated var unownedExecutor: UnownedSerialExecutor { eventLoop.executor.asUnownedSerialExecutor() }

    /// - Parameter gap: between two tokens of a stream, ns.
    init(jobs: [String], gap: UInt64, eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        self.gap = gap
        streams = jobs.map { Stream(job: $0) }
    }

    // MARK: on the loop

    func followed(_ index: Int) { streams[index].isFollowed = true }

    func acknowledged(_ index: Int) {
        if streams[index].acknowledged == nil { streams[index].acknowledged = MonotonicClock.nanoseconds }
    }

    func named(_ index: Int, _ job: String) { streams[index].job = job }

    func failed(_ index: Int) {
        streams[index].hasFailed = true
        ended(index, at: MonotonicClock.nanoseconds)
    }

    private func ended(_ index: Int, at time: UInt64) {
        streams[index].ended = time
        waiting.removeValue(forKey: index)?.resume()
    }

    /// One message of a stream.
    func received(_ index: Int, tokens found: ClosedRange<Int>?, isLast: Bool) {
        let now = MonotonicClock.nanoseconds
        messages += 1
        if let found {
            if streams[index].firstToken == nil { streams[index].firstToken = now }
            if found.lowerBound != streams[index].tokens { streams[index].isBroken = true }
            streams[index].tokens = found.upperBound + 1
            tokens += found.count
            let zero = streams[index].zero
            if isMeasuring, zero != 0 {
                for token in found {
                    let due = zero &+ UInt64(token) &* gap
                    lateness.record(now > due ? now - due : 0)
                }
            }
        }
        if isLast { ended(index, at: now) }
    }

    // MARK: from the measurement

    func startTimes(_ times: [String: UInt64]) {
        for index in streams.indices { streams[index].zero = times[streams[index].job] ?? 0 }
    }

    /// Makes a stream ready for another answer.
    func forget(_ index: Int) {
        let job = streams[index].job
        streams[index] = Stream(job: job)
    }

    /// Asks on this loop and returns when the answer is over.
    /// - Parameter patience: after which it returns in any case.
    /// - Returns: nanoseconds from the asking to the first token; nil when none came, or the stream failed.
    func timeFirstToken(of index: Int, patience: TimeAmount, ask: @Sendable () -> Void) async -> UInt64? {
        let sent = MonotonicClock.nanoseconds
        ask()
        let deadline = eventLoop.scheduleTask(in: patience) {
            self.assumeIsolated { _ = $0.waiting.removeValue(forKey: index)?.resume() }
        }
        await withCheckedContinuation { waiting[index] = $0 }
        deadline.cancel()
        guard let first = streams[index].firstToken, streams[index].ended != nil, !streams[index].hasFailed else { return nil }
        return first - sent
    }

    func measure(_ on: Bool) { isMeasuring = on }

    func count(where condition: @Sendable (Stream) -> Bool) -> Int { streams.count { condition($0) } }

    /// Looks every few milliseconds; times are taken where things happen, not here.
    nonisolated func wait(
        for what: String, seconds: Double, every pause: Duration = .milliseconds(5), until condition: @Sendable (Stream) -> Bool
    ) async throws {
        let start = ContinuousClock.now
        while true {
            let (done, all) = await (count(where: condition), streams.count)
            if done >= all { return }
            guard start.duration(to: .now) < .seconds(seconds) else {
                throw CommandFailure(.failed, "sluice: after \(Int(seconds)) s only \(done) of \(all) streams \(what)")
            }
            try await Task.sleep(for: pause)
        }
    }
}
