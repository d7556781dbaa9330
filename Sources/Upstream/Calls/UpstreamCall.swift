import Contract
import Glibc

/// One request to an upstream, from the dial to its end. On the loop only.
package final class UpstreamCall {
    /// How long an answer that is whole may keep its connection open until it ends as HTTP has it, so that the connection can serve again.
    private static let drainTime = Duration.seconds(1)

    private unowned let client: UpstreamClient
    private let jobID: JobID
    private let upstream: UpstreamConfiguration
    private let adapter: any UpstreamAdapter
    private var receiver: (any UpstreamReceiver)?
    private var transfer: CurlTransfer?
    private var decoder: (any StreamDecoder)?
    private var head: HTTPResponseHead?
    private var errorBody: [UInt8] = []
    private var failure: Failure?
    /// What the receiver was not yet told of.
    private var batch = OutputBatch()
    private var hasConnected = false
    private var hasAnswered = false
    private var toldConnected = false
    private var toldAnswered = false
    private var drainTimer: LoopTimer?

    init(
        client: UpstreamClient, jobID: JobID, upstream: UpstreamConfiguration, adapter: any UpstreamAdapter, receiver: any UpstreamReceiver
    ) {
        self.client = client
        self.jobID = jobID
        self.upstream = upstream
        self.adapter = adapter
        self.receiver = receiver
    }

    func dialled(_ transfer: CurlTransfer) { self.transfer = transfer }

    /// Shuts the connection down before it returns; the receiver is told nothing more. Cancelling what has ended does nothing.
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
        client.sockets.callEnded(jobID)
        transfer = nil
        decoder = nil
        errorBody = []
        batch = OutputBatch()
        client.ended(self)
    }

    private func end(_ result: UpstreamResult) {
        guard let receiver else { return }
        self.receiver = nil
        release()
        receiver.upstreamEnded(result)
    }

    private func end(_ code: FailureCode, _ message: String) {
        end(Failure(code, message, upstreamStatus: code == .upstreamUnreachable ? nil : head?.status))
    }

    private func end(_ failure: Failure) {
        var failure = failure
        failure.message = HTTPFailure.redact(failure.message, key: upstream.key)
        let requestID = head?.requestID.map { HTTPFailure.redact($0, key: upstream.key, limit: HTTPFailure.keptRequestIDBytes) }
        end(.failed(UpstreamFailure(failure: failure, retryAfter: nil, requestID: requestID)))
    }
}

extension UpstreamCall: ExchangeDelegate {
    func exchangeConnected() {
        hasConnected = true
        if let transfer { client.metrics.connected(isNew: transfer.isOnNewConnection) }
    }

    func exchangeAnswered(_ head: HTTPResponseHead) -> Bool {
        self.head = head
        client.metrics.answered(upstream.name, status: head.status)
        guard head.isSuccess else { return !(300..<400).contains(head.status) }
        hasAnswered = true
        do throws(Failure) {
            decoder = try adapter.decoder(for: head)
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
            try decoder.receive(bytes, into: &batch)
            return true
        } catch {
            failure = error
            return false
        }
    }

    func exchangeProgressed(outcome: ExchangeOutcome?) {
        if outcome != nil { transfer = nil }
        // What was still read is not wanted any more, and the connection broke because of an interrupt: that is on its way to this loop.
        if client.sockets.wasCut(jobID) { return }
        if let outcome, outcome.kind == .complete, failure == nil, let decoder {
            do throws(Failure) { try decoder.finish(into: &batch) } catch { failure = error }
        }
        guard tellProgress() else { return }
        if let failure { return end(failure) }
        if let outcome { return conclude(outcome) }
        if let decoder, decoder.sawEndMark, drainTimer == nil {
            drainTimer = client.loop.schedule(after: Self.drainTime) { [weak self] in self?.end(.complete) }
        }
    }

    /// False when the receiver cancelled.
    private func tellProgress() -> Bool {
        if hasConnected, !toldConnected {
            toldConnected = true
            receiver?.upstreamConnected()
        }
        if hasAnswered, !toldAnswered {
            toldAnswered = true
            receiver?.upstreamAnswered()
        }
        if !batch.isEmpty, let receiver {
            receiver.upstreamProduced(batch.outputs, chunks: batch.chunks)
            batch.outputs.removeAll(keepingCapacity: true)
            batch.chunks = 0
        }
        return receiver != nil
    }

    private func conclude(_ outcome: ExchangeOutcome) {
        if let decoder, decoder.isComplete { return end(.complete) }
        // Even when the connection broke: the status says more of why.
        if let head, !head.isSuccess {
            return end(.failed(HTTPFailure.failure(head: head, body: errorBody, upstream: upstream, secondsSinceEpoch: time(nil))))
        }
        switch outcome.kind {
        // libcurl is content with a connection that closes inside the head.
        case .complete where head == nil:
            end(.upstreamDisconnected, "upstream \(upstream.name) closed the connection before it had answered")
        case .complete: end(.upstreamTruncated, "upstream \(upstream.name) ended its answer with neither a finish reason nor an end mark")
        case .unreachable where hasConnected:
            end(.upstreamDisconnected, "the connection to upstream \(upstream.name) broke: \(outcome.detail)")
        case .unreachable: end(.upstreamUnreachable, "upstream \(upstream.name) cannot be reached: \(outcome.detail)")
        case .broken: end(.upstreamDisconnected, "the connection to upstream \(upstream.name) broke: \(outcome.detail)")
        case .malformed: end(.upstreamProtocol, "upstream \(upstream.name) does not speak HTTP as it should: \(outcome.detail)")
        case .impossible:
            end(Failure(.upstreamUnreachable, "upstream \(upstream.name) cannot be asked: \(outcome.detail)", retryable: false))
        }
    }
}
