import NIOCore

/// The sockets written to during the current event loop tick. Each is flushed once, after the tick. Confined to the event loop.
final class FlushList {
    private var sockets: [ClientSocket] = []
    private let eventLoop: any EventLoop

    init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    /// Adds a socket. The caller adds each socket at most once between flushes.
    func add(_ socket: ClientSocket) {
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
