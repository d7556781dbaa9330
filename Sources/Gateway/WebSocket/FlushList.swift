import NIOCore

/// Sockets that were written to in this turn of the loop, each flushed once at its end. Lives on the event loop.
final class FlushList {
    private var sockets: [AgentSocket] = []
    private let eventLoop: any EventLoop

    init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    /// Called once a socket and turn.
    func add(_ socket: AgentSocket) {
        sockets.append(socket)
        guard sockets.count == 1 else { return }
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.execute { bound.value.flush() }
    }

    private func flush() {
        let dirty = sockets
        sockets.removeAll(keepingCapacity: true)
        for socket in dirty { socket.flush() }
    }
}
