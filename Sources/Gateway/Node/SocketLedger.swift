import Metrics
import NIOCore

/// How many connections there are, whatever they speak: a listener that takes them without end runs out of descriptors, for everybody.
/// Lives on the event loop.
final class ConnectionLedger {
    private var count = 0
    private let maximum: Int

    /// - Parameter sockets: as many WebSockets may be there; as many plain HTTP connections again, and some for probes and those on their
    /// way.
    init(sockets: Int) { maximum = 2 * sockets + 1_000 }

    /// Counts a connection as long as it is open.
    /// - Returns: false when there are too many; then only probes are answered on it (`ProbeReserve`).
    func admit(_ channel: any Channel) -> Bool {
        guard count < maximum else {
            return false
        }
        count += 1
        let ledger = NIOLoopBound(self, eventLoop: channel.eventLoop)
        channel.closeFuture.whenComplete { _ in ledger.value.count -= 1 }
        return true
    }
}

/// How many WebSockets there are, in all and from each address. Lives on the event loop.
final class SocketLedger {
    private(set) var sockets: [ObjectIdentifier: AgentSocket] = [:]
    private var addresses: [String: Int] = [:]
    private let maximum: Int
    private let maximumPerAddress: Int
    private let gauge = Gauge(label: "sluice_gateway_sockets")

    init(settings: GatewaySettings) {
        maximum = settings.socketsMaximum
        maximumPerAddress = settings.socketsPerAddress
    }

    var count: Int { sockets.count }

    var isFull: Bool { sockets.count >= maximum }
    func isFull(address: String) -> Bool { maximumPerAddress > 0 && addresses[address, default: 0] >= maximumPerAddress }

    func add(_ socket: AgentSocket) {
        sockets[ObjectIdentifier(socket)] = socket
        addresses[socket.address, default: 0] += 1
        gauge.record(count)
    }

    func remove(_ socket: AgentSocket) {
        guard sockets.removeValue(forKey: ObjectIdentifier(socket)) != nil else { return }
        let left = addresses[socket.address, default: 1] - 1
        addresses[socket.address] = left > 0 ? left : nil
        gauge.record(count)
    }
}
