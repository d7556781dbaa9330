import Contract
import CurlTransport
import Glibc
import Support

/// One generation request to an upstream, from connecting until its result. Used on the event loop only.
package final class UpstreamCall {
    /// Outlives its calls: it holds each call until the call ends.
    private unowned let client: UpstreamClient
    private let jobID: JobID
    private let upstream: UpstreamConfiguration
    private let adapter: any UpstreamAdapter
    /// Nil once the call was cancelled or its result was delivered.
    private var receiver: (any UpstreamReceiver)?
    private var transfer: CurlTransfer?
    private var decoder: (any StreamDecoder)?
    private var head: HTTPResponseHead?
    /// The start of an error response's body, up to `HTTPFailure.keptBodyBytes`.
    private var errorBody: [UInt8] = []
    private var failure: Failure?
    /// Decoded output that was not delivered to the receiver yet.
    private var batch = OutputBatch()
    private var hasConnected = false
    private var reportedConnected = false
    private var drainTimer: LoopTimer?
    private var isPaused = false

    /// Whether the upstream said that the answer is over, so that no output is missed and the call ends by itself soon.
    package var isDraining: Bool { drainTimer != nil }

    init(
        client: UpstreamClient, jobID: JobID, upstream: UpstreamConfiguration, adapter: any UpstreamAdapter, receiver: any UpstreamReceiver
    ) {
        self.client = client
        self.jobID = jobID
        self.upstream = upstream
        self.adapter = adapter
        self.receiver = receiver
    }

    /// Stores the transfer that `CurlMulti` started for this call.
    func dialled(_ transfer: CurlTransfer) { self.transfer = transfer }

    /// Cancels the call and shuts its connection down before returning. The receiver gets no further callbacks. Does nothing on an ended
    /// call.
    package func cancel() {
        guard receiver != nil else { return }
        receiver = nil
        release()
    }

    /// Stops reading from the socket until `resumeReading` (back-pressure). Bytes that were read before are still delivered.
    package func pauseReading() {
        isPaused = true
        cancelDrain()
        if let transfer { client.setPaused(true, transfer) }
    }

    /// Continues reading from the socket.
    package func resumeReading() {
        isPaused = false
        if let decoder, decoder.isOver { startDrain() }
        if let transfer { client.setPaused(false, transfer) }
    }

    /// Cancels the timer, removes the transfer and releases all buffers.
    private func release() {
        cancelDrain()
        if let transfer { client.remove(transfer) }
        client.sockets.callEnded(jobID.rawValue)
        transfer = nil
        decoder = nil
        errorBody = []
        batch = OutputBatch()
        client.ended(self)
    }

    /// Releases the call and delivers its result to the receiver. Does nothing if the call has already ended.
    private func end(_ result: UpstreamResult) {
        guard let receiver else { return }
        self.receiver = nil
        release()
        receiver.upstreamEnded(result)
    }

    /// Ends the call with a failure, after redacting the upstream's key from its message and request id.
    private func end(_ failure: Failure) {
        var failure = failure
        failure.message = HTTPFailure.redact(failure.message, key: upstream.key)
        let requestID = head?.requestID.map { HTTPFailure.redact($0, key: upstream.key, limit: HTTPFailure.keptRequestIDBytes) }
        end(.failed(UpstreamFailure(failure: failure, retryAfter: nil, requestID: requestID)))
    }
}

extension UpstreamCall: ExchangeDelegate {
    package func exchangeConnected() {
        hasConnected = true
        if let transfer { client.metrics.connected(isNew: transfer.isOnNewConnection) }
    }

    package func exchangeAnswered(_ head: HTTPResponseHead) -> Bool {
        self.head = head
        client.metrics.answered(upstream.name, status: head.status)
        guard head.isSuccess else { return !(300..<400).contains(head.status) }
        do throws(Failure) {
            decoder = try adapter.decoder(for: head)
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
            try decoder.receive(bytes, into: &batch)
            return true
        } catch {
            failure = error
            return false
        }
    }

    package func exchangeProgressed(outcome: ExchangeOutcome?) {
        if outcome != nil { transfer = nil }
        // An interrupt shut the connection down from another thread. The worker's request to cancel this call is already queued on the
        // loop; further output and the connection error are dropped.
        if client.sockets.wasCut(jobID.rawValue) { return }
        let hasOutput = batch.chunks > 0
        if let outcome { finishAnswer(after: outcome) }
        guard reportProgress() else { return }
        if let failure { return end(failure) }
        if let outcome { return conclude(outcome) }
        if let decoder, decoder.isOver, drainTimer == nil || hasOutput { startDrain() }
    }

    /// Decodes the end of the answer. A connection that broke after the answer was complete does no harm.
    private func finishAnswer(after outcome: ExchangeOutcome) {
        guard failure == nil, let decoder, outcome.kind == .complete || decoder.isOver else { return }
        do throws(Failure) { try decoder.finish(into: &batch) } catch { failure = error }
    }

    /// Starts the time after which the answer ends although its connection stays open. Does nothing while reading is paused.
    private func startDrain() {
        cancelDrain()
        guard !isPaused, receiver != nil else { return }
        drainTimer = client.loop.schedule(after: client.drainTime) { [weak self] in self?.drained() }
    }

    private func cancelDrain() {
        if let drainTimer { client.loop.cancel(drainTimer) }
        drainTimer = nil
    }

    /// Ends the answer as if its connection had been closed now.
    private func drained() {
        drainTimer = nil
        if client.sockets.wasCut(jobID.rawValue) { return }
        let outcome = ExchangeOutcome(kind: .complete)
        finishAnswer(after: outcome)
        guard reportProgress() else { return }
        if let failure { return end(failure) }
        conclude(outcome)
    }

    /// Delivers connection state and output to the receiver. Returns false if the receiver cancelled the call.
    private func reportProgress() -> Bool {
        if hasConnected, !reportedConnected {
            reportedConnected = true
            receiver?.upstreamConnected()
        }
        if !batch.isEmpty, let receiver {
            receiver.upstreamProduced(batch.outputs, chunks: batch.chunks)
            batch.outputs.removeAll(keepingCapacity: true)
            batch.chunks = 0
        }
        return receiver != nil
    }

    /// Turns libcurl's outcome into the result of the call.
    private func conclude(_ outcome: ExchangeOutcome) {
        if let decoder, decoder.isComplete { return end(.complete) }
        // An error status explains the failure better than the broken connection.
        if let head, !head.isSuccess {
            return end(.failed(HTTPFailure.failure(head: head, body: errorBody, upstream: upstream, secondsSinceEpoch: WallClock.seconds)))
        }
        end(
            outcome.failure(
                of: "upstream \(upstream.name)", head: head, hasConnected: hasConnected,
                truncation: "without a finish reason or an end mark"))
    }
}
