import NIOCore

/// The connection that an answer is written to. Used on its event loop.
protocol AnswerSink: AnyObject {
    /// Whether the socket has accepted all bytes so far.
    var isWritable: Bool { get }
    /// Sends bytes of the clock's writer. May call `clientLeft` before it returns.
    func send(_ bytes: ByteBuffer)
    /// Sends a complete response.
    func reply(status: Int, type: String, body: [UInt8])
    /// The response is complete; the connection may serve the next request.
    func answerEnded()
    /// Closes the connection in the middle of the body, after pending writes.
    func breakOff()
}

/// A running answer: writes the pieces that its pace says are due to its connection.
///
/// It ends with its last piece or when its client disconnects. A model with `outlivesClient` continues to its last piece after a
/// disconnect.
final class SimulatedGeneration: Timed {
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
    /// Nil after a disconnect and after the end, which also breaks the reference cycle with the connection.
    private var sink: (any AnswerSink)?
    private var state = State.paced

    private enum State {
        /// Waiting for the next piece. Any state may follow.
        case paced
        /// The socket's buffer is full. Next is `paced` when it has room, or `ended` after a disconnect.
        case full
        /// Silent without end. Only a disconnect ends it.
        case silent
        /// Everything is written but not yet accepted by the socket. Next is `ended` with this result.
        case finishing(RequestEnd)
        /// The result is recorded. Final.
        case ended
    }

    /// Maximum number of bytes in one write if many tokens are due at once.
    private static let writeLimit = 16_384

    /// - Parameters:
    ///   - error: The body for the error status that the script may request.
    ///   - chunked: Whether the client supports HTTP/1.1 chunks.
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

    /// Starts the answer.
    /// - Parameter head: Head of a streamed response; it is sent at once together with the start of the form.
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

    /// The socket has accepted all pending bytes.
    func roomAgain() {
        switch state {
        case .full:
            state = .paced
            fire(at: TokenClock.now)
        case .finishing(let end): conclude(end)
        case .paced, .silent, .ended: break
        }
    }

    /// The client has disconnected.
    /// - Parameter now: When the disconnect was noticed, nanoseconds of CLOCK_MONOTONIC.
    func clientLeft(at now: UInt64) {
        sink = nil
        if case .ended = state { return }
        record.clientLeft(at: now)
        let continues = if case .silent = state { false } else { script.outlivesClient && !pace.isExhausted }
        guard continues else { return conclude(.clientClosed, at: now) }
        state = .paced
        clock.wait(self, until: max(now, pace.due))
    }

    /// Takes the pieces that are due and sends them. Then ends, pauses for a full socket, or waits for the next piece.
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

    /// Sends the bytes in the clock's writer, if any.
    private func flush() {
        if clock.writer.buffer.readableBytes > 0 { sink?.send(clock.writer.buffer) }
    }

    /// Sends what follows the last piece. Concludes at once if the socket has accepted everything.
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
            case .complete where streamed && script.staysOpen:
                form.end(total: pace.written, to: &clock.writer)
                state = .silent
                return flush()
            case .complete, .errorFrame, .truncated:
                state = .finishing(Self.end(of: pace.ending))
                if streamed { finishStream(sink) } else { finishWhole(sink) }
            }
        }
        if case .finishing(let end) = state, sink.isWritable { conclude(end) }
    }

    /// Writes the ending of a stream and the end of the body.
    private func finishStream(_ sink: any AnswerSink) {
        switch pace.ending {
        case .complete: form.end(total: pace.written, to: &clock.writer)
        case .errorFrame: form.errorFrame(to: &clock.writer)
        case .truncated, .drop, .silence: break
        }
        clock.writer.finish()
        sink.send(clock.writer.buffer)
    }

    /// Sends the answer, or its error, as one response.
    private func finishWhole(_ sink: any AnswerSink) {
        let body = pace.ending == .errorFrame ? form.wholeError : form.whole(total: pace.written, complete: pace.ending == .complete)
        sink.reply(status: 200, type: form.wholeType, body: body)
    }

    /// Records the result and releases the connection.
    private func conclude(_ end: RequestEnd, at now: UInt64 = TokenClock.now) {
        state = .ended
        clock.cancel(self)
        ledger.end(record, end, at: now)
        let sink = sink
        self.sink = nil
        if end != .dropped { sink?.answerEnded() }
    }

    /// The recorded result of an ending that the answer reached.
    private static func end(of ending: AnswerPace.Ending) -> RequestEnd {
        switch ending {
        case .complete, .truncated: .done
        case .errorFrame: .error
        case .drop: .dropped
        case .silence: .clientClosed
        }
    }
}
