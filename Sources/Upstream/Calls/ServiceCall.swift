import Contract
import CurlTransport
import Support

/// One request with one document as its response: recognition or retrieval. Used on the event loop only.
package final class ServiceCall {
    /// Maximum bytes of a response.
    private static let maximumResponse = 1 << 20

    /// Outlives its calls: it holds each call until the call ends.
    private unowned let client: UpstreamClient
    private let jobID: JobID
    private let upstream: UpstreamConfiguration
    /// Nil once the call was cancelled or its result was delivered.
    private var completion: ((Result<[UInt8], UpstreamFailure>) -> Void)?
    private var transfer: CurlTransfer?
    private var head: HTTPResponseHead?
    private var body: [UInt8] = []
    private var failure: Failure?
    private var hasConnected = false

    /// - Parameter completion: called once with the body of a 2xx response, or the failure; not called after `cancel()`.
    init(
        client: UpstreamClient, jobID: JobID, upstream: UpstreamConfiguration,
        completion: @escaping (Result<[UInt8], UpstreamFailure>) -> Void
    ) {
        self.client = client
        self.jobID = jobID
        self.upstream = upstream
        self.completion = completion
    }

    /// Stores the transfer that `CurlMulti` started for this call.
    func dialled(_ transfer: CurlTransfer) { self.transfer = transfer }

    /// Cancels the call and closes its connection before returning. Does nothing on an ended call.
    package func cancel() {
        guard completion != nil else { return }
        completion = nil
        release()
    }

    private func release() {
        if let transfer { client.remove(transfer) }
        client.sockets.callEnded(jobID.rawValue)
        transfer = nil
        body = []
        client.ended(self)
    }

    /// Releases the call and delivers its result, with the key redacted. Does nothing if the call has already ended.
    private func end(_ result: Result<[UInt8], UpstreamFailure>) {
        guard let completion else { return }
        self.completion = nil
        release()
        completion(
            result.mapError { error in
                var error = error
                error.failure.message = HTTPFailure.redact(error.failure.message, key: upstream.key)
                return error
            })
    }
}

extension ServiceCall: ExchangeDelegate {
    package func exchangeConnected() {
        hasConnected = true
        if let transfer { client.metrics.connected(isNew: transfer.isOnNewConnection) }
    }

    package func exchangeAnswered(_ head: HTTPResponseHead) -> Bool {
        self.head = head
        return !(300..<400).contains(head.status)
    }

    package func exchangeReceived(_ bytes: Span<UInt8>) -> Bool {
        let maximum = head?.isSuccess == true ? Self.maximumResponse : HTTPFailure.keptBodyBytes
        guard bytes.count <= maximum - body.count else {
            body.append(copying: bytes.extracting(first: max(0, maximum - body.count)))
            if head?.isSuccess == true {
                failure = Failure(.upstreamProtocol, "the response of the \(upstream.name) upstream is larger than \(maximum) bytes")
            }
            return false
        }
        body.append(copying: bytes)
        return true
    }

    package func exchangeProgressed(outcome: ExchangeOutcome?) {
        guard let outcome else { return }
        transfer = nil
        // The interrupt that has cut the connection follows on the loop.
        if client.sockets.wasCut(jobID.rawValue) { return }
        if let failure { return end(.failure(UpstreamFailure(failure: failure))) }
        if let head, !head.isSuccess {
            return end(
                .failure(HTTPFailure.failure(head: head, body: body, upstream: upstream, secondsSinceEpoch: WallClock.seconds)))
        }
        if outcome.kind == .complete, head != nil { return end(.success(body)) }
        let failure = outcome.failure(
            of: "the \(upstream.name) upstream", head: head, hasConnected: hasConnected, truncation: "too early")
        end(.failure(UpstreamFailure(failure: failure)))
    }
}
