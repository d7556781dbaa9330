import Contract
import DequeModule
import Glibc
import NIOCore
import NIOHTTP1
import Support

/// Serves connections above the limit of open connections. Each gets one response: health and readiness probes (`/healthz`, `/readyz`) are
/// answered, anything else is rejected. An orchestrator therefore does not restart a gateway whose connections are used up. Confined to the
/// event loop.
final class ProbeReserve {
    /// Maximum number of connections in the reserve. A further one closes the oldest, which has been answered by then if it was a probe.
    static let maximum = 256
    /// Maximum lifetime of a connection in the reserve.
    static let timeout = TimeAmount.seconds(2)
    /// File descriptors not available to ordinary connections: those of the reserve, of Redis, files and the runtime.
    private static let reservedDescriptors = maximum + 256

    private var reserve: Deque<ObjectIdentifier> = []
    private var channels: [ObjectIdentifier: any Channel] = [:]

    /// File descriptors available to ordinary connections, out of the process's limit.
    static func ordinaryDescriptors(of limit: Int = ProbeReserve.descriptorLimit) -> Int { max(64, limit - reservedDescriptors) }

    /// The soft limit of `RLIMIT_NOFILE`; 1,024 if it cannot be read.
    static var descriptorLimit: Int { SystemCalls.descriptorLimit.map { Int(clamping: $0.rlim_cur) } ?? 1_024 }

    /// Sets up the pipeline of a connection in the reserve.
    /// - Parameter readiness: the source of the response to `/readyz`.
    func serve(_ channel: any Channel, readiness: Readiness) throws {
        if channels.count >= Self.maximum, let oldest = reserve.popFirst() { channels.removeValue(forKey: oldest)?.close(promise: nil) }
        let id = ObjectIdentifier(channel)
        reserve.append(id)
        channels[id] = channel
        let this = NIOLoopBound(self, eventLoop: channel.eventLoop)
        let timer = channel.eventLoop.scheduleTask(in: Self.timeout) { channel.close(promise: nil) }
        channel.closeFuture.whenComplete { _ in
            timer.cancel()
            guard this.value.channels.removeValue(forKey: id) != nil else { return }
            this.value.reserve.removeAll { $0 == id }
        }
        try channel.pipeline.syncOperations.configureHTTPServerPipeline(withPipeliningAssistance: false, withErrorHandling: false)
        try channel.pipeline.syncOperations.addHandler(ProbeHandler(readiness: readiness))
    }
}

/// Responds to the only request of a connection in the reserve.
private final class ProbeHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let readiness: Readiness
    private var hasAnswered = false

    init(readiness: Readiness) { self.readiness = readiness }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !hasAnswered, case .head(let head) = unwrapInboundIn(data) else { return }
        hasAnswered = true
        let isProbe = head.method == .GET || head.method == .HEAD
        let path = head.uri.prefix { $0 != "?" }
        guard isProbe, path == "/healthz" || path == "/readyz" else {
            return EarlyRefusal.connections.answer(on: context.channel) { context.write(wrapOutboundOut($0), promise: nil) }
        }
        let answer = path == "/healthz" ? HealthAnswer.up : HealthAnswer.readiness(readiness.problem)
        let status: HTTPResponseStatus = answer.isGood ? .ok : .serviceUnavailable
        for part in EarlyRefusal.parts(status, answer.json, isHead: head.method == .HEAD) {
            context.write(wrapOutboundOut(part), promise: nil)
        }
        context.flush()
        EarlyRefusal.closeAfterAnswer(context.channel)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
