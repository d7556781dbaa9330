import Logging
import Metrics
import NIOCore

/// A handler of the listener that logs when connections cannot be accepted, for example because no file descriptor is left.
///
/// NIO's `AcceptBackoffHandler` behind it stops accepting for a second after each such error. A descriptor that becomes free in between is
/// used at once, so that errors and accepted connections alternate; an episode is logged once and ends after `calm` without an error.
final class AcceptErrorLog: ChannelInboundHandler {
    typealias InboundIn = any Channel
    typealias InboundOut = any Channel

    /// Time without an error after which the next accepted connection ends the episode.
    static let calm = TimeAmount.seconds(10)

    private static let errors = Counter(label: "sluice_accept_errors_total")

    private let logger: Logger
    private let now: () -> NIODeadline
    /// Errors of the current episode; 0: there is none.
    private var count = 0
    private var last = NIODeadline.distantPast

    init(logger: Logger, now: @escaping () -> NIODeadline = NIODeadline.now) {
        self.logger = logger
        self.now = now
        Self.errors.increment(by: 0)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if count > 0, now() - last >= Self.calm {
            logger.info("connections are accepted again", metadata: ["errors": "\(count)"])
            count = 0
        }
        context.fireChannelRead(data)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if error is IOError {
            Self.errors.increment()
            if count == 0 { logger.error("connections cannot be accepted", metadata: ["error": "\(error)"]) }
            count += 1
            last = now()
        }
        context.fireErrorCaught(error)
    }
}
