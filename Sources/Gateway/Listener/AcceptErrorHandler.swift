import Glibc
import Logging
import Metrics
import NIOCore

/// A handler of the listener for errors of accept(2), such as a lack of file descriptors: it stops accepting for a while and logs that once.
///
/// NIO keeps the listener registered after such an error, so that the event loop would try again at once, at the full load of a processor.
/// Its `AcceptBackoffHandler` delays only a later read. A descriptor that becomes free is used at the next try, so that errors and accepted
/// connections alternate; an episode ends after `calm` without an error.
final class AcceptErrorHandler: ChannelInboundHandler {
    typealias InboundIn = any Channel
    typealias InboundOut = any Channel

    /// Time without accepting after an error for want of resources.
    static let pause = TimeAmount.seconds(1)
    /// Time without an error after which the next accepted connection ends the episode.
    static let calm = TimeAmount.seconds(10)

    private static let errors = Counter(label: "sluice_accept_errors_total")

    private let logger: Logger
    private let now: () -> NIODeadline
    /// Errors of the current episode; 0: there is none.
    private var count = 0
    private var last = NIODeadline.distantPast
    private var isPaused = false

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
        Self.errors.increment()
        if count == 0 { logger.error("connections cannot be accepted", metadata: ["error": "\(error)"]) }
        count += 1
        last = now()
        switch (error as? IOError)?.errnoCode {
        case EMFILE, ENFILE, ENOBUFS, ENOMEM: stopAccepting(context)
        default: break
        }
        // Not passed on: an error that reaches the end of the pipeline ends the server's sequence of connections. NIO's own handler stops
        // only errors of system calls.
    }

    private func stopAccepting(_ context: ChannelHandlerContext) {
        guard !isPaused else { return }
        isPaused = true
        setAutoRead(false, context)
        context.eventLoop.assumeIsolated().scheduleTask(in: Self.pause) {
            self.isPaused = false
            self.setAutoRead(true, context)
        }
    }

    private func setAutoRead(_ isOn: Bool, _ context: ChannelHandlerContext) {
        do { try context.channel.syncOptions?.setOption(.autoRead, value: isOn) } catch {
            logger.debug("the listener is closed", metadata: ["error": "\(error)"])
        }
    }
}
