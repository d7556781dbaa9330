import Metrics
import NIOCore

/// Counts connections per client address against a maximum. IPv6 addresses are grouped by /64, the usual size of one customer's network.
struct AddressShares {
    private var counts: [String: Int] = [:]
    /// Connections per address; 0: no limit.
    let maximum: Int

    init(maximum: Int) { self.maximum = maximum }

    func count(_ address: String) -> Int { counts[Self.key(address), default: 0] }
    func isFull(_ address: String) -> Bool { maximum > 0 && count(address) >= maximum }
    mutating func add(_ address: String) { counts[Self.key(address), default: 0] += 1 }

    mutating func remove(_ address: String) {
        let key = Self.key(address)
        let left = counts[key, default: 1] - 1
        counts[key] = left > 0 ? left : nil
    }

    /// The key an address is counted under: IPv4 addresses as they are, IPv6 addresses as their first four groups, and IPv4-mapped
    /// addresses (`::ffff:a.b.c.d`) as the IPv4 address.
    static func key(_ address: String) -> String {
        guard address.utf8.contains(UInt8(ascii: ":")) else { return address }
        if address.utf8.contains(UInt8(ascii: ".")) {
            return String(address[(address.lastIndex(of: ":").map(address.index(after:)) ?? address.startIndex)...])
        }
        let halves = address.split(separator: "::", maxSplits: 1, omittingEmptySubsequences: false)
        var groups = halves[0].split(separator: ":").map(String.init)
        if halves.count == 2 {
            let tail = halves[1].split(separator: ":").map(String.init)
            groups += Array(repeating: "0", count: max(0, 8 - groups.count - tail.count)) + tail
        }
        return groups.prefix(4).joined(separator: ":") + "::/64"
    }
}

/// Limits the number of TCP connections, in total and per address, so that the process does not run out of file descriptors. Confined to
/// the event loop.
final class ConnectionLedger {
    /// Connections reserved for addresses with fewer than `reservedPerAddress`, so that load balancer probes and operators can connect when
    /// others use up the rest.
    private let reserved: Int
    static let reservedPerAddress = 4

    private var count = 0
    private let maximum: Int
    private var addresses: AddressShares

    /// Allows as many plain HTTP connections as WebSockets, plus some for probes and connections during their handshake, but no more than the
    /// process has file descriptors for. One address gets at most half of them.
    /// - Parameter descriptors: file descriptors available to ordinary connections.
    init(settings: GatewaySettings, descriptors: Int = .max) {
        maximum = max(1, min(2 * settings.socketsMaximum + 1_000, descriptors))
        reserved = min(100, maximum / 4)
        let share = settings.addressShare
        addresses = AddressShares(maximum: share == 0 ? 0 : min(2 * share + 250, max(1, maximum / 2)))
    }

    /// Counts a connection until it closes.
    /// - Returns: false when a limit is reached; then only probes are answered on the connection (`ProbeReserve`). It is not counted, so
    ///   that the connections of an address at its limit take no places of others.
    func admit(_ channel: any Channel) -> Bool {
        let address = channel.remoteAddress?.ipAddress ?? ""
        let isReserved = count >= maximum - reserved && addresses.count(address) >= Self.reservedPerAddress
        guard count < maximum, !isReserved, !addresses.isFull(address) else {
            Refusals.count(.upgrade, code: count < maximum && !isReserved ? "too_many_connections_of_address" : "too_many_connections")
            return false
        }
        count += 1
        addresses.add(address)
        let ledger = NIOLoopBound(self, eventLoop: channel.eventLoop)
        channel.closeFuture.whenComplete { _ in
            ledger.value.count -= 1
            ledger.value.addresses.remove(address)
        }
        return true
    }
}

/// The open WebSockets, with their number per address. Confined to the event loop.
final class SocketLedger {
    private(set) var sockets: [ObjectIdentifier: ClientSocket] = [:]
    private var addresses: AddressShares
    private let maximum: Int
    private let gauge = Gauge(label: "sluice_gateway_sockets")

    init(settings: GatewaySettings) {
        maximum = settings.socketsMaximum
        addresses = AddressShares(maximum: settings.addressShare)
    }

    var count: Int { sockets.count }

    /// Whether the limit of the gateway, or of one address, is reached.
    var isFull: Bool { sockets.count >= maximum }
    func isFull(address: String) -> Bool { addresses.isFull(address) }

    /// Counts an open socket.
    func add(_ socket: ClientSocket) {
        sockets[ObjectIdentifier(socket)] = socket
        addresses.add(socket.address)
        gauge.record(count)
    }

    /// Removes a closed socket; ignored when it was removed before.
    func remove(_ socket: ClientSocket) {
        guard sockets.removeValue(forKey: ObjectIdentifier(socket)) != nil else { return }
        addresses.remove(socket.address)
        gauge.record(count)
    }
}
