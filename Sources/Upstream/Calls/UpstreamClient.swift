import Contract
import CurlTransport
import Logging

/// Sends generation and speech requests to upstreams. Created inside an actor that is pinned to the event loop and used on that loop only.
package final class UpstreamClient {
    let loop: EpollLoop
    let multi: CurlMulti
    let sockets: UpstreamSockets
    private let logger: Logger
    let metrics = UpstreamMetrics()
    /// Maximum time to keep reading an answer after its finish reason or end mark, counted anew when more output follows. Usage may still
    /// come, and a response that ends properly lets its connection be reused.
    var drainTime = Duration.seconds(1)
    /// Running calls. Held here so that a call lives until it ends, even if its creator drops it.
    private var calls: [ObjectIdentifier: UpstreamCall] = [:]
    private var speeches: [ObjectIdentifier: SpeechCall] = [:]
    private var services: [ObjectIdentifier: ServiceCall] = [:]

    /// - Parameter sockets: Registry through which other threads can shut a job's connection down.
    /// - Throws: `CurlMulti.SetupError` if libcurl cannot be initialized.
    package init(loop: EpollLoop, settings: TransportSettings, sockets: UpstreamSockets = UpstreamSockets(), logger: Logger) throws {
        self.loop = loop
        self.sockets = sockets
        self.logger = logger
        multi = try CurlMulti(loop: loop, settings: settings, sockets: sockets)
    }

    /// Starts a generation request and connects at once. The receiver is not called before this method returns. The model name in the body
    /// is sent unchanged: the router has already applied aliases.
    /// - Throws: `unsupported_parameter` or `invalid_request` if the request cannot be expressed for this upstream, `internal` if libcurl
    ///   refuses the transfer. No connection was opened then.
    package func start(
        _ request: GenerationRequest, on upstream: UpstreamConfiguration, receiver: any UpstreamReceiver
    ) throws(Failure) -> UpstreamCall {
        let adapter = try upstream.adapter(for: request)
        let exchange = try adapter.request(request, on: upstream)
        let call = UpstreamCall(client: self, jobID: request.jobID, upstream: upstream, adapter: adapter, receiver: receiver)
        do throws(CurlMulti.SetupError) {
            call.dialled(try multi.start(exchange, owner: request.jobID.rawValue, delegate: call))
        } catch {
            logger.error("upstream request setup failed", metadata: ["upstream": "\(upstream.name)", "reason": "\(error)"])
            throw Failure(.internal, "cannot set up the request to upstream \(upstream.name): \(error)")
        }
        calls[ObjectIdentifier(call)] = call
        metrics.open(calls.count)
        return call
    }

    /// Starts a speech request and connects at once. The receiver is not called before this method returns.
    /// - Throws: `authentication` if the key is not a valid header value, `internal` if libcurl refuses the transfer. No connection was
    ///   opened then.
    package func speak(_ request: SpeechRequest, on speech: SpeechConfiguration, receiver: any SpeechReceiver) throws(Failure) -> SpeechCall
    {
        let exchange = try request.exchange(on: speech)
        let call = SpeechCall(client: self, speech: speech, receiver: receiver)
        do throws(CurlMulti.SetupError) {
            call.dialled(try multi.start(exchange, owner: nil, delegate: call))
        } catch {
            throw Failure(.internal, "cannot set up the request to the speech upstream: \(error)")
        }
        speeches[ObjectIdentifier(call)] = call
        return call
    }

    /// Starts a transcription and connects at once. `completion` is not called before this method returns. Another thread can shut the
    /// connection down by `UpstreamSockets.cut`.
    /// - Throws: as `speak`.
    package func recognize(
        _ request: RecognitionRequest, on recognition: RecognitionConfiguration,
        completion: @escaping (Result<[UInt8], UpstreamFailure>) -> Void
    ) throws(Failure) -> ServiceCall {
        try serve(try request.exchange(on: recognition), of: request.jobID, on: recognition.upstream, completion)
    }

    /// Starts a retrieval, like `recognize`.
    package func retrieve(
        _ request: RetrievalRequest, on retrieval: RetrievalConfiguration,
        completion: @escaping (Result<[UInt8], UpstreamFailure>) -> Void
    ) throws(Failure) -> ServiceCall {
        try serve(try request.exchange(on: retrieval), of: request.jobID, on: retrieval.upstream, completion)
    }

    private func serve(
        _ exchange: HTTPRequest, of id: JobID, on upstream: UpstreamConfiguration,
        _ completion: @escaping (Result<[UInt8], UpstreamFailure>) -> Void
    ) throws(Failure) -> ServiceCall {
        let call = ServiceCall(client: self, jobID: id, upstream: upstream, completion: completion)
        do throws(CurlMulti.SetupError) {
            call.dialled(try multi.start(exchange, owner: id.rawValue, delegate: call))
        } catch {
            throw Failure(.internal, "cannot set up the request to the \(upstream.name) upstream: \(error)")
        }
        services[ObjectIdentifier(call)] = call
        return call
    }

    /// Number of calls that have not ended.
    package var openCalls: Int { calls.count + speeches.count + services.count }

    /// Cancels all calls and closes every connection. Receivers get no further callbacks.
    package func close() {
        for call in calls.values { call.cancel() }
        for call in speeches.values { call.cancel() }
        for call in services.values { call.cancel() }
        multi.close()
    }

    // MARK: used by calls

    func setPaused(_ paused: Bool, _ transfer: CurlTransfer) { multi.setPaused(paused, transfer) }
    func remove(_ transfer: CurlTransfer) { multi.remove(transfer) }
    func ended(_ call: UpstreamCall) {
        calls[ObjectIdentifier(call)] = nil
        metrics.open(calls.count)
    }
    func ended(_ call: ServiceCall) { services[ObjectIdentifier(call)] = nil }
    func ended(_ call: SpeechCall) { speeches[ObjectIdentifier(call)] = nil }
}

extension UpstreamSockets {
    /// Shuts the connection of a job's generation call down, from any thread. See `cut(_:)`, which takes the id as text.
    package func cut(_ job: JobID) -> Bool { cut(job.rawValue) }
}
