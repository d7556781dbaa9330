import Contract
import DequeModule
import Glibc
import NIOCore
import NIOHTTP1

/// Connections beyond those that may be open: each may ask one question, and only probes (`/healthz`, `/readyz`) get more than a refusal. So
/// a gateway whose connections are taken is not restarted by whoever watches it. Lives on the event loop.
final class ProbeReserve {
    /// Connections in the reserve. Beyond it the oldest one is closed: a probe asks at once, so it has its answer by then.
    static let maximum = 256
    /// From the connection to the end of its answer.
    static let timeout = TimeAmount.seconds(2)
    /// Descriptors that are not for ordinary connections: the reserve's, and those of Redis, files and the runtime.
    private static let reservedDescriptors = maximum + 256

    private let descriptorMaximum: Int
    private var ordinary = 0
    private var reserve: Deque<ObjectIdentifier> = []
    private var channels: [ObjectIdentifier: any Channel] = [:]

    /// - Parameter descriptors: how many this process may have open.
    init(descriptors: Int = ProbeReserve.descriptorLimit) { descriptorMaximum = max(64, descriptors - Self.reservedDescriptors) }

    private static var descriptorLimit: Int {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1_024 }
        return Int(clamping: limit.rlim_cur)
    }

    /// Counts an ordinary connection as long as it is open.
    /// - Returns: false when the descriptors of ordinary connections are used up.
    func admit(_ channel: any Channel) -> Bool {
        guard ordinary < descriptorMaximum else { return false }
        ordinary += 1
        let reserve = NIOLoopBound(self, eventLoop: channel.eventLoop)
        channel.closeFuture.whenComplete { _ in reserve.value.ordinary -= 1 }
        return true
    }

    /// Takes in a connection that is refused otherwise.
    /// - Parameter readiness: answers `/readyz`.
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

/// Answers the one request of a connection in the reserve.
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
