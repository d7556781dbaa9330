import Metrics
import NIOCore

/// How many connections and sockets one address may have. IPv6 addresses count by their /64, which is what one customer of a provider has.
struct AddressShares {
    private var counts: [String: Int] = [:]
    /// 0: no limit.
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

    /// The address itself, or the first four groups of an IPv6 address. `::ffff:a.b.c.d` is the IPv4 address that it holds.
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

/// How many connections there are, whatever they speak: a listener without a bound runs out of descriptors, for everybody. Lives on the
/// event loop.
final class ConnectionLedger {
    /// The last places are for addresses that have next to nothing: probes of a balancer or an operator find one whoever holds the others.
    static let reserved = 100
    static let reservedPerAddress = 4

    private var count = 0
    private let maximum: Int
    private var addresses: AddressShares

    /// As many WebSockets may be there; as many plain HTTP connections again, and some for probes and those on their way.
    init(settings: GatewaySettings) {
        maximum = 2 * settings.socketsMaximum + 1_000
        let share = settings.addressShare
        addresses = AddressShares(maximum: share == 0 ? 0 : 2 * share + 250)
    }

    /// Counts a connection as long as it is open.
    /// - Returns: false when there are too many, or too many of its address; then only probes are answered on it (`ProbeReserve`).
    func admit(_ channel: any Channel) -> Bool {
        let address = channel.remoteAddress?.ipAddress ?? ""
        let isReserved = count >= maximum - Self.reserved && addresses.count(address) >= Self.reservedPerAddress
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

/// How many WebSockets there are, in all and from each address. Lives on the event loop.
final class SocketLedger {
    private(set) var sockets: [ObjectIdentifier: AgentSocket] = [:]
    private var addresses: AddressShares
    private let maximum: Int
    private let gauge = Gauge(label: "sluice_gateway_sockets")

    init(settings: GatewaySettings) {
        maximum = settings.socketsMaximum
        addresses = AddressShares(maximum: settings.addressShare)
    }

    var count: Int { sockets.count }

    var isFull: Bool { sockets.count >= maximum }
    func isFull(address: String) -> Bool { addresses.isFull(address) }

    func add(_ socket: AgentSocket) {
        sockets[ObjectIdentifier(socket)] = socket
        addresses.add(socket.address)
        gauge.record(count)
    }

    func remove(_ socket: AgentSocket) {
        guard sockets.removeValue(forKey: ObjectIdentifier(socket)) != nil else { return }
        addresses.remove(socket.address)
        gauge.record(count)
    }
}
