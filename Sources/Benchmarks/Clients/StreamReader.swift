import Contract
import Histogram
import NIOCore
import OperatorTools
import RedisClient
import Support

/// The measuring client's state of the streams that it reads. Isolated to its event loop, so that a message costs a scan and a few
/// additions, without tasks or decoding.
actor StreamReader: PinnedActor {
    /// The state of one stream.
    struct Stream: Sendable {
        /// The job's id, which identifies the request in the simulator's list.
        var job: String
        /// Number of tokens received.
        var tokens = 0
        /// CLOCK_MONOTONIC ns, like the following times; nil: not yet.
        var firstToken: UInt64?
        var acknowledged: UInt64?
        var ended: UInt64?
        /// When the simulator's first token was due; 0: unknown.
        var zero: UInt64 = 0
        var isFollowed = false
        /// Frames with voice, and those among them that followed the acknowledgement of an interrupt.
        var voiceFrames = 0
        var firstVoice: UInt64?
        var voiceAfterAcknowledgement = 0
        var hasFailed = false
        /// A token was repeated or is missing.
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
    /// Continuations that wait for a stream's end, by index.
    private var waiting: [Int: CheckedContinuation<Void, Never>] = [:]

    nonisolated let executor: LoopExecutor
    /// Whether frames with voice are counted, which costs another scan of each message.
    nonisolated let recordsVoice: Bool

    /// - Parameter gap: interval between tokens of a stream, ns.
    init(jobs: [String], gap: UInt64, recordsVoice: Bool = false, eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        self.recordsVoice = recordsVoice
        executor = LoopExecutor(eventLoop)
        self.gap = gap
        streams = jobs.map { Stream(job: $0) }
    }

    // MARK: called by handlers on the event loop

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

    /// Records a message of a stream.
    /// - Parameter found: numbers of the first and the last token in it.
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

    /// Records a frame with voice.
    func receivedVoice(_ index: Int) {
        if streams[index].firstVoice == nil { streams[index].firstVoice = MonotonicClock.nanoseconds }
        streams[index].voiceFrames += 1
        if streams[index].acknowledged != nil { streams[index].voiceAfterAcknowledgement += 1 }
    }

    // MARK: called by the measurement

    /// Sets the start times of streams by job id.
    func startTimes(_ times: [String: UInt64]) {
        for index in streams.indices { streams[index].zero = times[streams[index].job] ?? 0 }
    }

    /// Resets a stream for another answer.
    func forget(_ index: Int) {
        let job = streams[index].job
        streams[index] = Stream(job: job)
    }

    /// Calls `ask` on this event loop and waits for the end of the answer, at most for `patience`.
    /// - Returns: nanoseconds from the call to the first token; nil when there was none, or the stream failed.
    func timeFirstToken(of index: Int, patience: TimeAmount, ask: @Sendable () -> Void) async -> UInt64? {
        let sent = MonotonicClock.nanoseconds
        ask()
        let deadline = eventLoop.scheduleTask(in: patience) {
            self.assumeIsolated { _ = $0.waiting.removeValue(forKey: index)?.resume() }
        }
        await withCheckedContinuation { continuation in
            // The answer may have ended since `ask`.
            if streams[index].ended != nil { continuation.resume() } else { waiting[index] = continuation }
        }
        deadline.cancel()
        guard let first = streams[index].firstToken, streams[index].ended != nil, !streams[index].hasFailed else { return nil }
        return first - sent
    }

    func measure(_ on: Bool) { isMeasuring = on }

    func count(where condition: @Sendable (Stream) -> Bool) -> Int { streams.count { condition($0) } }

    /// Polls until all streams meet a condition. Polling does not affect the measured times, which are taken when messages arrive.
    /// - Throws: `CommandFailure` after the timeout.
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
