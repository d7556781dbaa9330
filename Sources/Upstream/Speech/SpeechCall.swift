import Contract
import CurlTransport
import Glibc
import Support

/// Receives the events of one speech synthesis, synchronously on the event loop. It may cancel the call from inside a callback.
package protocol SpeechReceiver: AnyObject {
    /// Samples have arrived: PCM, 16 bits, mono. A sample may be split between two calls.
    func speechProduced(_ samples: [UInt8])
    /// The synthesis has ended; `failure` is nil if it is complete. This is the last callback; it does not follow a `cancel()`.
    func speechEnded(_ failure: Failure?)
}

/// The synthesis of one sentence, from connecting until its result. Used on the event loop only.
package final class SpeechCall {
    /// Maximum time to keep reading after a complete answer. A response that ends properly lets its connection be reused.
    private static let drainTime = Duration.milliseconds(200)

    /// Outlives its calls: it holds each call until the call ends.
    private unowned let client: UpstreamClient
    private let speech: SpeechConfiguration
    /// Nil once the call was cancelled or its result was delivered.
    private var receiver: (any SpeechReceiver)?
    private var transfer: CurlTransfer?
    private var decoder: (any SpeechDecoder)?
    private var head: HTTPResponseHead?
    /// The start of an error response's body, up to `HTTPFailure.keptBodyBytes`.
    private var errorBody: [UInt8] = []
    private var failure: Failure?
    private var hasConnected = false
    /// Decoded samples that were not delivered to the receiver yet.
    private var samples: [UInt8] = []
    private var drainTimer: LoopTimer?

    init(client: UpstreamClient, speech: SpeechConfiguration, receiver: any SpeechReceiver) {
        self.client = client
        self.speech = speech
        self.receiver = receiver
    }

    /// Stores the transfer that `CurlMulti` started for this call.
    func dialled(_ transfer: CurlTransfer) { self.transfer = transfer }

    /// Cancels the call and closes its connection before returning. The receiver gets no further callbacks. Does nothing on an ended call.
    package func cancel() {
        guard receiver != nil else { return }
        receiver = nil
        release()
    }

    /// Stops reading from the socket until `resumeReading` (back-pressure). Bytes that were read before are still delivered.
    package func pauseReading() { if let transfer { client.setPaused(true, transfer) } }

    /// Continues reading from the socket.
    package func resumeReading() { if let transfer { client.setPaused(false, transfer) } }

    /// Cancels the timer, removes the transfer and releases all buffers.
    private func release() {
        if let drainTimer { client.loop.cancel(drainTimer) }
        drainTimer = nil
        if let transfer { client.remove(transfer) }
        transfer = nil
        decoder = nil
        samples = []
        client.ended(self)
    }

    /// Releases the call and delivers its result, with the key redacted. Does nothing if the call has already ended.
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
    package func exchangeConnected() {
        hasConnected = true
        if let transfer { client.metrics.connected(isNew: transfer.isOnNewConnection) }
    }

    package func exchangeAnswered(_ head: HTTPResponseHead) -> Bool {
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

    package func exchangeReceived(_ bytes: Span<UInt8>) -> Bool {
        guard failure == nil else { return false }
        guard let decoder else {
            errorBody.append(copying: bytes.extracting(first: HTTPFailure.keptBodyBytes - errorBody.count))
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

    package func exchangeProgressed(outcome: ExchangeOutcome?) {
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

    /// Turns libcurl's outcome into the result of the call.
    private func conclude(_ outcome: ExchangeOutcome) {
        if let decoder, decoder.isComplete { return end(nil) }
        if let head, !head.isSuccess {
            let now = WallClock.seconds
            return end(HTTPFailure.failure(head: head, body: errorBody, upstream: speech.upstream, secondsSinceEpoch: now).failure)
        }
        end(
            outcome.failure(
                of: "the speech upstream", head: head, hasConnected: hasConnected, truncation: "before the audio was complete"))
    }
}
