import Metrics
import NIOCore

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
