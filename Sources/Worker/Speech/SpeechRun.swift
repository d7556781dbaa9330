import Contract
import CurlTransport
import DequeModule
import Support
import Upstream

/// Speech of one job: sentences are synthesized while the text is still being generated, and their audio is emitted in order. Not
/// thread-safe: used on the upstream loop only.
///
/// Timers, tickets and syntheses refer to the run unowned: its generation keeps it until `close` or the closing event, which end them all.
final class SpeechRun {
    /// Maximum number of open syntheses: the current one and the next.
    private static let maximumOpen = 2
    /// Maximum buffered bytes of the next synthesis; reading from its socket is paused above that.
    private static let maximumBuffered = 256 << 10
    /// Minimum bytes per audio event: 100 ms at 24 kHz.
    private static let minimumEvent = 4_800
    /// Maximum requests per sentence, as long as no sample was received. The second is delayed by `retryDelay`, the third by twice that.
    private static let maximumRequests = 3
    private static let retryDelay = Duration.milliseconds(200)
    /// Maximum bytes per audio event.
    private static let maximumEvent = 32 << 10

    private let speech: SpeechConfiguration
    private let jobID: JobID
    private let model: String
    private let voice: String
    private let traceparent: String?
    private let client: UpstreamClient
    private let gate: SpeechGate
    private let loop: EpollLoop
    private let idle: Duration
    private let emit: (Audio) -> Void
    private let ended: (Failure?) -> Void

    private var cutter = SentenceCutter()
    /// Sentences to be synthesized, with their place in the text.
    private var sentences: Deque<Sentence> = []
    /// A sentence without surrounding white space, and the offsets of its piece of the text in bytes of UTF-8.
    fileprivate struct Sentence {
        var text: String
        var start: Int
        var end: Int
    }

    /// Bytes of text already split into sentences.
    private var cutBytes = 0
    /// Sentences that begin at or before this offset are not spoken again.
    private let lastSpoken: Int
    /// Open syntheses; audio of the first one is being emitted.
    private var syntheses: Deque<Synthesis> = []
    private var nextIndex: Int
    private var hasSpoken = false
    /// The finish reason of the text; nil while it is being generated.
    private var textFinish: FinishReason?
    /// Emitting is paused by back pressure.
    private var isPaused = false
    /// Idle timer of the current synthesis.
    private var timer: LoopTimer?
    /// The speech is complete, failed or was closed.
    private(set) var isOver = false

    /// - Parameters:
    ///   - continuing: output of an earlier attempt. Its last sentence may have been spoken in part: the rest of that sentence is
    ///     skipped, because no audio may be repeated, and all following sentences are spoken.
    ///   - idle: maximum time without data from the upstream.
    ///   - emit: receives each event; may call `pause`, `close` and `fail`.
    ///   - ended: called once, after the closing event, with the failure if any; not called after `close`.
    init(
        _ speech: SpeechConfiguration, job: Job, client: UpstreamClient, gate: SpeechGate, loop: EpollLoop, continuing: Continuation?,
        idle: Duration, emit: @escaping (Audio) -> Void, ended: @escaping (Failure?) -> Void
    ) {
        self.speech = speech
        jobID = job.id
        model = job.speech?.model ?? speech.model
        voice = job.speech?.voice ?? speech.voice
        traceparent = job.traceparent
        self.client = client
        self.gate = gate
        self.loop = loop
        nextIndex = continuing?.nextAudio ?? 0
        lastSpoken = continuing?.lastSpoken ?? -1
        self.idle = idle
        self.emit = emit
        self.ended = ended
        enqueue(cutter.feed(continuing?.text ?? ""))
    }

    // MARK: text

    /// Synthesizes the text that an earlier attempt wrote but did not speak.
    func speakPending() { advance() }

    /// Adds generated text.
    func append(_ text: String) {
        guard !isOver, textFinish == nil else { return }
        enqueue(cutter.feed(text))
        advance()
    }

    /// Marks the text as complete; the speech ends when all of it is spoken.
    func textEnded(_ reason: FinishReason) {
        guard !isOver, textFinish == nil else { return }
        textFinish = reason
        enqueue(cutter.finish())
        advance()
    }

    /// Queues the pieces that can be spoken.
    private func enqueue(_ pieces: [String]) {
        for piece in pieces {
            let end = cutBytes + piece.utf8.count
            if cutBytes > lastSpoken, let sentence = SentenceCutter.spoken(piece) {
                sentences.append(Sentence(text: sentence, start: cutBytes, end: end))
            }
            cutBytes = end
        }
    }

    // MARK: ending and back pressure

    /// Closes the sockets of all syntheses before it returns. No further event is emitted.
    func close() {
        isOver = true
        sentences.removeAll()
        for synthesis in syntheses {
            synthesis.call?.cancel()
            if let timer = synthesis.timer { loop.cancel(timer) }
        }
        // All sockets are closed first, because releasing a ticket may start another synthesis at once.
        for synthesis in syntheses { release(synthesis) }
        syntheses.removeAll()
        if let timer { loop.cancel(timer) }
        timer = nil
    }

    /// Ends the speech with a failure; the text continues without it.
    func fail(_ failure: Failure) {
        guard !isOver else { return }
        finish(failure)
    }

    /// Emits the closing event.
    private func finish(_ failure: Failure?) {
        close()
        emit(Audio(index: nextIndex, format: "pcm", data: "", last: true, textFinish: textFinish))
        ended(failure)
    }

    /// Pauses reading because events cannot be written fast enough.
    func pause() {
        guard !isOver, !isPaused else { return }
        isPaused = true
        // A synthesis without samples is not paused: if an answer arrives completely while the transfer is paused before its headers,
        // libcurl 7.88 reports it as empty.
        for synthesis in syntheses where synthesis.hasSamples { synthesis.call?.pauseReading() }
    }

    /// Resumes reading.
    func resume() {
        guard !isOver, isPaused else { return }
        isPaused = false
        for synthesis in syntheses where !synthesis.isHeld { synthesis.call?.resumeReading() }
        restartIdleTimer()
        advance()
    }

    // MARK: syntheses

    /// Emits available audio and starts the next syntheses.
    private func advance() {
        while !isOver, !isPaused {
            if let first = syntheses.first {
                emitSamples(first)
                guard !isOver else { return }
                if first.isComplete, first.samples.count < 2 {
                    if let failure = first.failure { return fail(failure) }
                    syntheses.removeFirst()
                    if let next = syntheses.first {
                        next.isHeld = false
                        if !isPaused { next.call?.resumeReading() }
                    }
                    restartIdleTimer()
                    continue
                }
            }
            while syntheses.count < Self.maximumOpen, let sentence = sentences.popFirst() {
                guard start(sentence) else { return }
            }
            guard syntheses.isEmpty else { return }
            if textFinish != nil { finish(nil) }
            return
        }
    }

    /// Starts the synthesis of a sentence.
    /// - Returns: false when it failed and ended the speech.
    private func start(_ sentence: Sentence) -> Bool {
        let synthesis = Synthesis(sentence, run: self)
        syntheses.append(synthesis)
        if syntheses.count == 1 { restartIdleTimer() }
        return dial(synthesis)
    }

    /// Sends the request, or waits for admission.
    private func dial(_ synthesis: Synthesis) -> Bool {
        let ticket = SpeechGate.Ticket { [unowned self, unowned synthesis] in
            guard !isOver, sendRequest(synthesis) else { return }
            restartIdleTimer()
        }
        synthesis.ticket = ticket
        return gate.enter(ticket) ? sendRequest(synthesis) : true
    }

    /// Returns the ticket of a synthesis whose socket is closed or no longer needed.
    fileprivate func release(_ synthesis: Synthesis) {
        guard let ticket = synthesis.ticket else { return }
        synthesis.ticket = nil
        gate.leave(ticket)
    }

    /// Sends the request.
    /// - Returns: false when it failed and ended the speech.
    private func sendRequest(_ synthesis: Synthesis) -> Bool {
        var request = SpeechRequest(jobID: jobID, text: synthesis.sentence.text, model: model, voice: voice)
        request.traceparent = traceparent
        do throws(Failure) {
            synthesis.call = try client.speak(request, on: speech, receiver: synthesis)
            return true
        } catch {
            fail(error)
            return false
        }
    }

    /// Schedules a retry of a failed synthesis if it is permitted. Reused connections may be closed while a request is sent, and
    /// upstreams may be briefly overloaded.
    fileprivate func schedulesRetry(_ synthesis: Synthesis, after failure: Failure) -> Bool {
        guard !isOver, failure.retryable, !synthesis.hasSamples, synthesis.tries < Self.maximumRequests else { return false }
        synthesis.tries += 1
        synthesis.timer = loop.schedule(after: Self.retryDelay * (synthesis.tries - 1)) { [unowned self, unowned synthesis] in
            synthesis.timer = nil
            _ = dial(synthesis)
        }
        return true
    }

    /// Emits whole samples in events of at least `minimumEvent` bytes; the first event of the speech may be smaller.
    private func emitSamples(_ synthesis: Synthesis) {
        // One removal per call: a removal per event would move the remaining samples each time.
        var emitted = 0
        defer { synthesis.samples.removeFirst(emitted) }
        while !isOver, !isPaused {
            let available = (synthesis.samples.count - emitted) & ~1
            guard available >= (synthesis.isComplete || !hasSpoken ? 2 : Self.minimumEvent) else { return }
            let count = min(available, Self.maximumEvent)
            let data = Base64.encode(synthesis.samples[emitted..<emitted + count])
            emitted += count
            hasSpoken = true
            let index = nextIndex
            nextIndex += 1
            let sentence = synthesis.sentence
            emit(
                Audio(
                    index: index, format: "pcm", data: data, last: false, textOffset: sentence.start, textEnd: sentence.end,
                    textFinish: textFinish))
        }
    }

    /// Handles received samples: emits them, or pauses a synthesis that is too far ahead.
    fileprivate func produced(_ synthesis: Synthesis) {
        guard !isOver else { return }
        if isPaused {
            synthesis.call?.pauseReading()
        } else if syntheses.first === synthesis {
            restartIdleTimer()
            advance()
        } else if !synthesis.isHeld, synthesis.samples.count > Self.maximumBuffered {
            synthesis.isHeld = true
            synthesis.call?.pauseReading()
        }
    }

    /// Handles the end of a synthesis.
    fileprivate func completed() {
        guard !isOver else { return }
        restartIdleTimer()
        advance()
    }

    /// Restarts the idle timer of the current synthesis; stops it while there is none, it waits for admission, or reading is paused.
    private func restartIdleTimer() {
        guard !isOver, !isPaused, let first = syntheses.first, !first.isComplete, first.ticket?.isWaiting != true else {
            if let timer { loop.cancel(timer) }
            return
        }
        let timer =
            self.timer ?? LoopTimer { [unowned self] in fail(Failure(.idleTimeout, "the speech upstream sent nothing for \(idle)")) }
        self.timer = timer
        loop.set(timer, after: idle)
    }
}

/// The synthesis of one sentence.
private final class Synthesis: SpeechReceiver {
    let sentence: SpeechRun.Sentence
    private unowned let run: SpeechRun
    var call: SpeechCall?
    /// Set while a socket is open or the synthesis waits for admission.
    var ticket: SpeechGate.Ticket?
    var tries = 1
    /// Set while a retry is scheduled.
    var timer: LoopTimer?
    private(set) var hasSamples = false
    /// Samples that were not emitted yet.
    var samples: [UInt8] = []
    /// The synthesis has ended.
    var isComplete = false
    /// Why it ended early; reported when its samples are emitted.
    var failure: Failure?
    /// Reading is paused because too many samples are buffered ahead of their turn.
    var isHeld = false

    init(_ sentence: SpeechRun.Sentence, run: SpeechRun) {
        self.sentence = sentence
        self.run = run
    }

    func speechProduced(_ samples: [UInt8]) {
        hasSamples = true
        self.samples += samples
        run.produced(self)
    }

    func speechEnded(_ failure: Failure?) {
        call = nil
        run.release(self)
        if let failure, run.schedulesRetry(self, after: failure) { return }
        isComplete = true
        self.failure = failure
        run.completed()
    }
}
