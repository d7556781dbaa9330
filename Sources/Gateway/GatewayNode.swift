import Logging
import NIOCore

/// All that lives on a gateway's event loop, put together.
final class GatewayNode {
    let context: GatewayContext
    let host: SessionHost
    let flushes: FlushList
    let ledger: SocketLedger
    let connections: ConnectionLedger
    let probes = ProbeReserve()
    let processor = ProcessorMeter()
    private var drained: (() -> Void)?

    init(context: GatewayContext) {
        self.context = context
        host = SessionHost(context: context)
        flushes = FlushList(eventLoop: context.eventLoop)
        ledger = SocketLedger(settings: context.settings)
        connections = ConnectionLedger(settings: context.settings)
    }

    // MARK: draining

    /// Sockets without running requests are sent away soon, the others when their last request has ended or the timeout is over, each
    /// spread over time so that clients do not all come back at one moment. `then` is called when no socket is left.
    func drain(then: @escaping () -> Void) {
        drained = then
        let timeout = context.settings.drainTimeout
        let spread = min(timeout / 5, .seconds(2))
        context.logger.info(
            "draining", metadata: ["sockets": "\(ledger.count)", "requests": "\(host.runningCount)", "timeout": "\(timeout)"])
        for (index, socket) in ledger.sockets.values.enumerated() where socket.isIdle {
            let delay = spread * index / max(1, ledger.count)
            _ = context.eventLoop.after(delay) { if socket.isIdle { socket.sendAway() } }
        }
        _ = context.eventLoop.after(timeout - spread) { [weak self] in
            guard let self else { return }
            for (index, socket) in self.ledger.sockets.values.enumerated() {
                _ = self.context.eventLoop.after(spread * index / max(1, self.ledger.count)) { socket.sendAway() }
            }
        }
        leftIfDrained()
    }

    /// What a drain left: sockets whose clients do not answer, or all of them when there was none.
    func abort() {
        for socket in ledger.sockets.values { socket.abort() }
    }

    /// Called whenever a socket is gone.
    func leftIfDrained() {
        guard ledger.count == 0, let drained else { return }
        self.drained = nil
        drained()
    }
}
