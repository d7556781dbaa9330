import Contract
import DequeModule
import Support
import Upstream

/// The voice of one job: sentences are synthesized while the model still writes, and told in their order. Lives on the loop.
final class SpeechRun {
    /// Syntheses open at once: the one that is being told and the one after it.
    static let together = 2
    /// Bytes of samples of one that is ahead, beyond which its socket is not read for a while.
    static let heldMaximum = 256 << 10
    /// Bytes of samples in an event: at 24 kHz, 100 ms.
    static let grain = 4_800
    /// Tries of one sentence until its first sample; the wait before the second is `patience`, before the third twice that.
    static let tries = 3
    static let patience = Duration.milliseconds(200)
    /// Bytes of samples that one event holds at most.
    static let eventMaximum = 32 << 10

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
    /// With where in the text each begins, bytes of UTF-8.
    private var sentences: Deque<(text: String, start: Int)> = []
    /// Bytes of text that were cut into sentences.
    private var cutBytes = 0
    /// Sentences that begin up to here are not spoken again.
    private let lastSpoken: Int
    /// The first is being told.
    private var syntheses: Deque<Synthesis> = []
    private var nextIndex: Int
    private var hasSpoken = false
    /// How the text ended.
    private var textFinish: FinishReason?
    private var isPaused = false
    private var timer: LoopTimer?
    /// The voice is closed: it has told all, failed, or nobody wants it any more.
    private(set) var isOver = false

    /// - Parameters:
    ///   - continuing: what an earlier attempt has told. The sentence that it spoke last may be heard in part only: what is left of it is
    ///   left
    ///     out, since nothing may be heard twice, and all that follow it are spoken.
    ///   - idle: how long an upstream may be silent.
    ///   - emit: takes each event; may call `pause`, `close` and `fail`.
    ///   - ended: called once, after the closing event, with why it ended too early; not after `close`.
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
        take(cutter.feed(continuing?.text ?? ""))
    }

    // MARK: the text

    /// Speaks what an earlier attempt wrote and did not speak.
    func speakOn() { advance() }

    func heard(_ text: String) {
        guard !isOver, textFinish == nil else { return }
        take(cutter.feed(text))
        advance()
    }

    /// The text is complete; the voice ends when all of it is spoken.
    func textEnded(_ reason: FinishReason) {
        guard !isOver, textFinish == nil else { return }
        textFinish = reason
        take(cutter.finish())
        advance()
    }

    private func take(_ pieces: [String]) {
        for piece in pieces {
            if cutBytes > lastSpoken, let sentence = SentenceCutter.spoken(piece) { sentences.append((sentence, cutBytes)) }
            cutBytes += piece.utf8.count
        }
    }

    // MARK: the end, and waiting

    /// Closes every synthesis' socket before it returns; nothing more is told.
    func close() {
        isOver = true
        sentences.removeAll()
        for synthesis in syntheses {
            synthesis.call?.cancel()
            if let timer = synthesis.timer { loop.cancel(timer) }
        }
        // The sockets first: whoever waited for these may dial at once.
        for synthesis in syntheses { release(synthesis) }
        syntheses.removeAll()
        if let timer { loop.cancel(timer) }
        timer = nil
    }

    /// The voice ends here; the text goes on without it.
    func fail(_ failure: Failure) {
        guard !isOver else { return }
        finish(failure)
    }

    private func finish(_ failure: Failure?) {
        close()
        emit(Audio(index: nextIndex, format: "pcm", data: "", last: true, textFinish: textFinish))
        ended(failure)
    }

    /// What was told cannot be written as fast: nothing more is read.
    func pause() {
        guard !isOver, !isPaused else { return }
        isPaused = true
        // One whose answer has not begun is left to begin: libcurl 7.88 takes an answer for empty that comes whole while it is held back
        // before its head.
        for synthesis in syntheses where synthesis.hasSamples { synthesis.call?.pauseReading() }
    }

    func resume() {
        guard !isOver, isPaused else { return }
        isPaused = false
        for synthesis in syntheses where !synthesis.isHeld { synthesis.call?.resumeReading() }
        watch()
        advance()
    }

    // MARK: syntheses

    /// Tells what is due and asks for what is next.
    private func advance() {
        while !isOver, !isPaused {
            if let first = syntheses.first {
                tell(first)
                guard !isOver else { return }
                if first.isWhole, first.samples.count < 2 {
                    if let failure = first.failure { return fail(failure) }
                    syntheses.removeFirst()
                    if let next = syntheses.first {
                        next.isHeld = false
                        if !isPaused { next.call?.resumeReading() }
                    }
                    watch()
                    continue
                }
            }
            while syntheses.count < Self.together, let sentence = sentences.popFirst() {
                guard start(sentence) else { return }
            }
            guard syntheses.isEmpty else { return }
            if textFinish != nil { finish(nil) }
            return
        }
    }

    private func start(_ sentence: (text: String, start: Int)) -> Bool {
        let synthesis = Synthesis(sentence.text, start: sentence.start, run: self)
        syntheses.append(synthesis)
        if syntheses.count == 1 { watch() }
        return dial(synthesis)
    }

    private func dial(_ synthesis: Synthesis) -> Bool {
        let ticket = SpeechGate.Ticket { [unowned self, unowned synthesis] in
            guard !isOver, ask(synthesis) else { return }
            watch()
        }
        synthesis.ticket = ticket
        return gate.enter(ticket) ? ask(synthesis) : true
    }

    /// It has no socket open, or wants none any more.
    fileprivate func release(_ synthesis: Synthesis) {
        guard let ticket = synthesis.ticket else { return }
        synthesis.ticket = nil
        gate.leave(ticket)
    }

    private func ask(_ synthesis: Synthesis) -> Bool {
        var request = SpeechRequest(jobID: jobID, text: synthesis.sentence, model: model, voice: voice)
        request.traceparent = traceparent
        do throws(Failure) {
            synthesis.call = try client.speak(request, on: speech, receiver: synthesis)
            return true
        } catch {
            fail(error)
            return false
        }
    }

    /// Whether what failed is tried again: kept connections close under a request, and upstreams ask for a moment's patience.
    fileprivate func triesAgain(_ synthesis: Synthesis, after failure: Failure) -> Bool {
        guard !isOver, failure.retryable, !synthesis.hasSamples, synthesis.tries < Self.tries else { return false }
        synthesis.tries += 1
        synthesis.timer = loop.schedule(after: Self.patience * (synthesis.tries - 1)) { [unowned self, unowned synthesis] in
            synthesis.timer = nil
            _ = dial(synthesis)
        }
        return true
    }

    /// Whole samples only, and not too few at a time, but for the first ones of all.
    private func tell(_ synthesis: Synthesis) {
        // One removal a call: one for each event would move all samples that follow each time.
        var told = 0
        defer { synthesis.samples.removeFirst(told) }
        while !isOver, !isPaused {
            let available = (synthesis.samples.count - told) & ~1
            guard available >= (synthesis.isWhole || !hasSpoken ? 2 : Self.grain) else { return }
            let count = min(available, Self.eventMaximum)
            let data = Base64.encode(synthesis.samples[told..<told + count])
            told += count
            hasSpoken = true
            let index = nextIndex
            nextIndex += 1
            emit(Audio(index: index, format: "pcm", data: data, last: false, textOffset: synthesis.start, textFinish: textFinish))
        }
    }

    fileprivate func produced(_ synthesis: Synthesis) {
        guard !isOver else { return }
        if isPaused {
            synthesis.call?.pauseReading()
        } else if syntheses.first === synthesis {
            watch()
            advance()
        } else if !synthesis.isHeld, synthesis.samples.count > Self.heldMaximum {
            synthesis.isHeld = true
            synthesis.call?.pauseReading()
        }
    }

    fileprivate func completed() {
        guard !isOver else { return }
        watch()
        advance()
    }

    /// Silence of the one that is being told ends the voice; a silence that is ours does not count.
    private func watch() {
        guard !isOver, !isPaused, let first = syntheses.first, !first.isWhole, first.ticket?.isWaiting != true else {
            if let timer { loop.cancel(timer) }
            return
        }
        let timer =
            self.timer ?? LoopTimer { [unowned self] in fail(Failure(.idleTimeout, "the speech upstream sent nothing for \(idle)")) }
        self.timer = timer
        loop.set(timer, after: idle)
    }
}

/// One sentence on its way.
private final class Synthesis: SpeechReceiver {
    let sentence: String
    /// Where it begins in the text.
    let start: Int
    private unowned let run: SpeechRun
    var call: SpeechCall?
    /// While it has a socket open or waits for leave to.
    var ticket: SpeechGate.Ticket?
    var tries = 1
    /// Set while it waits to be tried again.
    var timer: LoopTimer?
    private(set) var hasSamples = false
    /// What was not told yet.
    var samples: [UInt8] = []
    /// Nothing more comes.
    var isWhole = false
    /// Why it is not all; told when its turn has come.
    var failure: Failure?
    /// Ahead of its turn and long enough: not read from.
    var isHeld = false

    init(_ sentence: String, start: Int, run: SpeechRun) {
        self.sentence = sentence
        self.start = start
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
        if let failure, run.triesAgain(self, after: failure) { return }
        isWhole = true
        self.failure = failure
        run.completed()
    }
}
