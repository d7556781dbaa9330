import Contract
import Glibc

/// Who is told of one synthesis. Called on the loop, synchronously; may cancel the call from inside.
package protocol SpeechReceiver: AnyObject {
    /// Samples: PCM, 16 bits, one channel; a call may split one in two.
    func speechProduced(_ samples: [UInt8])
    /// The last call; not made after `cancel()`. Nil: it is spoken whole.
    func speechEnded(_ failure: Failure?)
}

/// The synthesis of one sentence, from the dial to its end. On the loop only.
package final class SpeechCall {
    /// How long an answer that is whole may keep its connection open until it ends as HTTP has it, so that the connection can serve again.
    private static let drainTime = Duration.milliseconds(200)

    private unowned let client: UpstreamClient
    private let speech: SpeechConfiguration
    private var receiver: (any SpeechReceiver)?
    private var transfer: CurlTransfer?
    private var decoder: (any SpeechDecoder)?
    private var head: HTTPResponseHead?
    private var errorBody: [UInt8] = []
    private var failure: Failure?
    private var hasConnected = false
    private var samples: [UInt8] = []
    private var drainTimer: LoopTimer?

    init(client: UpstreamClient, speech: SpeechConfiguration, receiver: any SpeechReceiver) {
        self.client = client
        self.speech = speech
        self.receiver = receiver
    }

    func dialled(_ transfer: CurlTransfer) { self.transfer = transfer }

    /// Closes the socket before it returns; the receiver is told nothing more. Cancelling what has ended does nothing.
    package func cancel() {
        guard receiver != nil else { return }
        receiver = nil
        release()
    }

    /// Back-pressure: the socket is not read from until `resumeReading`; what was read before is still told.
    package func pauseReading() { if let transfer { client.setPaused(true, transfer) } }

    package func resumeReading() { if let transfer { client.setPaused(false, transfer) } }

    private func release() {
        if let drainTimer { client.loop.cancel(drainTimer) }
        drainTimer = nil
        if let transfer { client.remove(transfer) }
        transfer = nil
        decoder = nil
        samples = []
        client.ended(self)
    }

    private func end(_ failure: Failure?) {
        guard let receiver else { return }
        self.receiver = nil
        release()
        receiver.speechEnded(
            failure.map { failure in
                var failure = failure
                failure.message = HTTPFailure.redact(failure.message, key: speech.key)
                return failure
            })
    }
}

extension SpeechCall: ExchangeDelegate {
    func exchangeConnected() {
        hasConnected = true
        if let transfer { client.metrics.connected(isNew: transfer.isOnNewConnection) }
    }

    func exchangeAnswered(_ head: HTTPResponseHead) -> Bool {
        self.head = head
        client.metrics.spoke(status: head.status)
        guard head.isSuccess else { return !(300..<400).contains(head.status) }
        do throws(Failure) {
            decoder = try speech.kind.decoder(for: head)
            return true
        } catch {
            failure = error
            return false
        }
    }

    func exchangeReceived(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard failure == nil else { return false }
        guard let decoder else {
            errorBody.append(contentsOf: bytes.prefix(HTTPFailure.keptBodyBytes - errorBody.count))
            return errorBody.count < HTTPFailure.keptBodyBytes
        }
        do throws(Failure) {
            try decoder.receive(bytes, into: &samples)
            return true
        } catch {
            failure = error
            return false
        }
    }

    func exchangeProgressed(outcome: ExchangeOutcome?) {
        if outcome != nil { transfer = nil }
        if let outcome, outcome.kind == .complete, failure == nil, let decoder {
            do throws(Failure) { try decoder.finish(into: &samples) } catch { failure = error }
        }
        if !samples.isEmpty, let receiver {
            let taken = samples
            samples.removeAll(keepingCapacity: true)
            receiver.speechProduced(taken)
        }
        guard receiver != nil else { return }
        if let failure { return end(failure) }
        if let outcome { return conclude(outcome) }
        if let decoder, decoder.isComplete, drainTimer == nil {
            drainTimer = client.loop.schedule(after: Self.drainTime) { [weak self] in self?.end(nil) }
        }
    }

    private func conclude(_ outcome: ExchangeOutcome) {
        if let decoder, decoder.isComplete { return end(nil) }
        if let head, !head.isSuccess {
            return end(HTTPFailure.failure(head: head, body: errorBody, upstream: speech.upstream, secondsSinceEpoch: time(nil)).failure)
        }
        switch outcome.kind {
        case .complete where head != nil: end(Failure(.upstreamTruncated, "the speech upstream ended its answer before its end"))
        case .unreachable where !hasConnected:
            end(Failure(.upstreamUnreachable, "the speech upstream cannot be reached: \(outcome.detail)"))
        case .malformed: end(Failure(.upstreamProtocol, "the speech upstream does not speak HTTP as it should: \(outcome.detail)"))
        case .impossible: end(Failure(.upstreamUnreachable, "the speech upstream cannot be asked: \(outcome.detail)", retryable: false))
        case .complete, .unreachable, .broken:
            end(Failure(.upstreamDisconnected, "the connection to the speech upstream broke: \(outcome.detail)"))
        }
    }
}
