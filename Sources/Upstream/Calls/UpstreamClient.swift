import Contract
import Logging

/// Asks upstreams for generations. Lives on the loop and is used there only; made inside an actor that is pinned to it.
package final class UpstreamClient {
    let loop: EpollLoop
    let multi: CurlMulti
    let sockets: UpstreamSockets
    private let logger: Logger
    let metrics = UpstreamMetrics()
    /// Calls live until they end, whether their makers hold them or not.
    private var calls: [ObjectIdentifier: UpstreamCall] = [:]
    private var speeches: [ObjectIdentifier: SpeechCall] = [:]

    /// - Throws: when libcurl has no memory.
    /// - Parameter sockets: by which others may cut connections.
    package init(loop: EpollLoop, settings: UpstreamSettings, sockets: UpstreamSockets = UpstreamSockets(), logger: Logger) throws {
        self.loop = loop
        self.sockets = sockets
        self.logger = logger
        multi = try CurlMulti(loop: loop, settings: settings, sockets: sockets)
    }

    /// Dials at once. The receiver hears nothing before this returns. The body's model is asked for as it stands: aliases were the router's
    /// to apply.
    /// - Throws: `unsupported_parameter`, `invalid_request`, for what cannot be asked of this upstream; nothing was dialled then.
    package func start(
        _ request: GenerationRequest, on upstream: UpstreamConfiguration, receiver: any UpstreamReceiver
    ) throws(Failure) -> UpstreamCall {
        let adapter = upstream.adapter
        let exchange = try adapter.request(request, on: upstream)
        let call = UpstreamCall(client: self, jobID: request.jobID, upstream: upstream, adapter: adapter, receiver: receiver)
        do throws(CurlMulti.SetupError) {
            call.dialled(try multi.start(exchange, owner: request.jobID, delegate: call))
        } catch {
            logger.error("upstream request could not be made", metadata: ["upstream": "\(upstream.name)", "reason": "\(error)"])
            throw Failure(.internal, "the request to upstream \(upstream.name) could not be made: \(error)")
        }
        calls[ObjectIdentifier(call)] = call
        metrics.open(calls.count)
        return call
    }

    /// Dials at once. The receiver hears nothing before this returns.
    /// - Throws: what keeps the request from being made; nothing was dialled then.
    package func speak(_ request: SpeechRequest, on speech: SpeechConfiguration, receiver: any SpeechReceiver) throws(Failure) -> SpeechCall
    {
        let exchange = try request.exchange(on: speech)
        let call = SpeechCall(client: self, speech: speech, receiver: receiver)
        do throws(CurlMulti.SetupError) {
            call.dialled(try multi.start(exchange, owner: nil, delegate: call))
        } catch {
            throw Failure(.internal, "the request to the speech upstream could not be made: \(error)")
        }
        speeches[ObjectIdentifier(call)] = call
        return call
    }

    package var openCalls: Int { calls.count + speeches.count }

    /// Closes every connection; receivers hear nothing more.
    package func close() {
        for call in calls.values { call.cancel() }
        for call in speeches.values { call.cancel() }
        multi.close()
    }

    func setPaused(_ paused: Bool, _ transfer: CurlTransfer) { multi.setPaused(paused, transfer) }
    func remove(_ transfer: CurlTransfer) { multi.remove(transfer) }
    func ended(_ call: UpstreamCall) {
        calls[ObjectIdentifier(call)] = nil
        metrics.open(calls.count)
    }
    func ended(_ call: SpeechCall) { speeches[ObjectIdentifier(call)] = nil }
}
