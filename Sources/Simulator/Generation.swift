import NIOCore

/// Where an answer goes: one connection, used on its loop.
protocol AnswerSink: AnyObject {
    /// The socket has taken what it was given.
    var isWritable: Bool { get }
    /// The clock's writer holds bytes for the socket; may call `clientLeft` from inside.
    func send(_ bytes: ByteBuffer)
    /// A whole response.
    func reply(status: Int, type: String, body: [UInt8])
    /// The response is over and its connection may serve the next.
    func answerEnded()
    /// Closes in mid-body, once the socket has taken what it was given.
    func breakOff()
}

/// One answer under way: what its pace says is due is written in its form to its connection.
///
/// Ends by itself, with its client, or (for a model that outlives its client) after its last token that nobody reads.
final class Generation: Timed {
    private let script: ModelScript
    private let answer: Answer
    private let form: any AnswerForm
    private let error: [UInt8]
    private let streamed: Bool
    private let chunked: Bool
    private let record: RequestRecord
    private let ledger: RequestLedger
    private let clock: TokenClock
    private var pace: AnswerPace
    /// Nil once the client left, and after the end (so that the two do not hold each other).
    private var sink: (any AnswerSink)?
    private var state = State.paced

    private enum State {
        /// Waiting in the clock for the next piece. May go anywhere.
        case paced
        /// The socket is full. Goes on (`paced`) when it has room, or ends with its client.
        case full
        /// Silent for good: only the client's leaving ends it.
        case silent
        /// All is written but not yet taken by the socket; then this is how it ended.
        case finishing(RequestEnd)
        case ended
    }

    /// Bytes in one write of an answer that has many tokens due at once.
    private static let writeLimit = 16_384

    /// - Parameters:
    ///   - error: the body for the status that the script may order.
    ///   - chunked: the client understands HTTP/1.1's chunks.
    init(
        script: ModelScript, answer: Answer, form: any AnswerForm, error: [UInt8], streamed: Bool, chunked: Bool, record: RequestRecord,
        ledger: RequestLedger, clock: TokenClock, sink: any AnswerSink
    ) {
        self.script = script
        self.answer = answer
        self.form = form
        self.error = error
        self.streamed = streamed && script.errorStatus == nil
        self.chunked = chunked
        self.record = record
        self.ledger = ledger
        self.clock = clock
        self.sink = sink
        if script.errorStatus != nil {
            var bare = ModelScript()
            bare.firstDelay = script.firstDelay
            pace = AnswerPace(script: bare, start: TokenClock.now, count: 0, streamed: false)
        } else {
            pace = AnswerPace(script: script, start: TokenClock.now, count: answer.count, streamed: streamed)
        }
    }

    /// - Parameter head: the head of a streamed response; it goes out at once with what its form starts with.
    func begin(head: ByteBuffer) {
        clock.writer.reset(chunked: chunked)
        if streamed {
            var head = head
            clock.writer.buffer.writeBuffer(&head)
            form.start(&clock.writer)
        }
        advance(at: TokenClock.now)
    }

    override func fire(at now: UInt64) {
        clock.writer.reset(chunked: chunked)
        advance(at: now)
    }

    /// The socket took all that it was given.
    func roomAgain() {
        switch state {
        case .full:
            state = .paced
            fire(at: TokenClock.now)
        case .finishing(let end): conclude(end)
        case .paced, .silent, .ended: break
        }
    }

    /// - Parameter now: when it was noticed, ns.
    func clientLeft(at now: UInt64) {
        sink = nil
        if case .ended = state { return }
        record.clientLeft(at: now)
        let goesOn = if case .silent = state { false } else { script.outlivesClient && !pace.isExhausted }
        guard goesOn else { return conclude(.clientClosed, at: now) }
        state = .paced
        clock.wait(self, until: max(now, pace.due))
    }

    private func advance(at now: UInt64) {
        let before = pace.written
        if streamed, sink != nil {
            while clock.writer.buffer.readableBytes < Self.writeLimit, let index = pace.take(at: now) {
                form.write(answer.piece(at: index), total: pace.written, to: &clock.writer)
            }
        } else {
            while pace.take(at: now) != nil {}
        }
        if pace.written > before { record.wrote(total: pace.written, at: before == 0 ? TokenClock.now : now) }
        if pace.hasEnded(at: now) { return finish() }
        flush()
        guard case .paced = state else { return }
        if let sink, !sink.isWritable {
            state = .full
        } else {
            clock.wait(self, until: max(now, pace.due))
        }
    }

    private func flush() {
        if clock.writer.buffer.readableBytes > 0 { sink?.send(clock.writer.buffer) }
    }

    private func finish() {
        guard let sink else { return conclude(Self.end(of: pace.ending)) }
        if let status = script.errorStatus {
            state = .finishing(.error)
            sink.reply(status: status, type: form.wholeType, body: error)
        } else {
            switch pace.ending {
            case .silence:
                state = .silent
                return flush()
            case .drop:
                flush()
                conclude(.dropped)
                return sink.breakOff()
            case .complete, .errorFrame, .truncated:
                state = .finishing(Self.end(of: pace.ending))
                if streamed { finishStream(sink) } else { finishWhole(sink) }
            }
        }
        if case .finishing(let end) = state, sink.isWritable { conclude(end) }
    }

    private func finishStream(_ sink: any AnswerSink) {
        switch pace.ending {
        case .complete: form.end(total: pace.written, to: &clock.writer)
        case .errorFrame: form.errorFrame(to: &clock.writer)
        case .truncated, .drop, .silence: break
        }
        clock.writer.finish()
        sink.send(clock.writer.buffer)
    }

    private func finishWhole(_ sink: any AnswerSink) {
        let body = pace.ending == .errorFrame ? form.wholeError : form.whole(total: pace.written, complete: pace.ending == .complete)
        sink.reply(status: 200, type: form.wholeType, body: body)
    }

    private func conclude(_ end: RequestEnd, at now: UInt64 = TokenClock.now) {
        state = .ended
        clock.cancel(self)
        ledger.end(record, end, at: now)
        let sink = sink
        self.sink = nil
        if end != .dropped { sink?.answerEnded() }
    }

    private static func end(of ending: AnswerPace.Ending) -> RequestEnd {
        switch ending {
        case .complete, .truncated: .done
        case .errorFrame: .error
        case .drop: .dropped
        case .silence: .clientClosed
        }
    }
}
