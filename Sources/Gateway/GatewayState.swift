import Glibc
import Logging
import NIOCore
import Support

/// Owner of all gateway objects that are confined to the event loop.
final class GatewayState {
    let context: GatewayContext
    let registry: SessionRegistry
    let flushes: FlushList
    /// Open WebSockets.
    let ledger: SocketLedger
    /// Open TCP connections, HTTP included.
    let connections: ConnectionLedger
    let probes = ProbeReserve()
    let processor = ProcessorMeter()
    /// Called once when a drain has closed the last socket; nil when no drain is running.
    private var onDrained: (() -> Void)?

    /// - Parameter descriptors: file descriptors available to ordinary connections.
    init(context: GatewayContext, descriptors: Int = ProbeReserve.ordinaryDescriptors()) {
        self.context = context
        registry = SessionRegistry(context: context)
        flushes = FlushList(eventLoop: context.eventLoop)
        ledger = SocketLedger(settings: context.settings)
        connections = ConnectionLedger(settings: context.settings, descriptors: descriptors)
    }

    // MARK: draining

    /// Closes all sockets with 1001. Idle sockets close first; the others when their last request ends, or at the drain timeout. Closes
    /// are spread over up to 2 s so that clients do not all reconnect at the same moment.
    /// - Parameter then: called on the event loop when no socket is left.
    func drain(then: @escaping () -> Void) {
        onDrained = then
        let timeout = context.settings.drainTimeout
        let spread = min(timeout / 5, .seconds(2))
        context.logger.info(
            "draining", metadata: ["sockets": "\(ledger.count)", "requests": "\(registry.runningCount)", "timeout": "\(timeout)"])
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
        completeDrainIfEmpty()
    }

    /// Closes the remaining sockets without a close handshake.
    func abort() {
        for socket in ledger.sockets.values { socket.abort() }
    }

    /// Completes a running drain if no socket is left. Called after every removal of a socket.
    func completeDrainIfEmpty() {
        guard ledger.count == 0, let onDrained else { return }
        self.onDrained = nil
        onDrained()
    }
}

/// CPU usage of this process, averaged over the last second or more. Not thread-safe; used on the event loop.
final class ProcessorMeter {
    private var lastWall = 0
    private var lastBusy = 0
    private var share = 0.0

    /// Per cent of one core; above 100 when several threads are busy. Updated at most once per second.
    var percent: Double {
        let wall = WallClock.milliseconds
        guard wall - lastWall >= 1000 || wall < lastWall else { return share }
        let usage = SystemCalls.resourceUsage
        let busy = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 + Int(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000
        if lastWall > 0, wall > lastWall { share = Double(busy - lastBusy) / Double(wall - lastWall) * 100 }
        (lastWall, lastBusy) = (wall, busy)
        return share
    }
}
