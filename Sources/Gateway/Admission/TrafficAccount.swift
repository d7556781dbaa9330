import NIOCore
import Support

/// Limits the processing time, memory and sockets of one tenant, or of the unregistered sockets of one address. Confined to the event loop.
///
/// Processing time is limited by a token bucket of bytes per second: received, parsed, and written in consequence. Sockets whose account is
/// in debt are not read. Memory is limited by the bytes held: incomplete messages and data waiting for Redis.
final class TrafficAccount {
    /// Bytes charged per frame in addition to its payload.
    static let frameCost = 512
    /// Members and elements of a message that are included in `frameCost`.
    private static let freeValues = 256
    /// Bytes charged for each further one: parsing it takes about as long as parsing that many bytes of text.
    private static let valueCost = 128
    /// Bytes that each socket may hold even when its account is over its limit.
    static let reserve = 16 << 10

    /// Maximum concurrent reads of log pages for replays; further ones wait in order.
    private static let maximumReads = 8

    private var reads = 0
    private var waitingReads = CircularBuffer<() -> Void>()
    /// Bytes held now.
    private(set) var held = 0
    /// Registered sockets.
    private(set) var sockets = 0
    private var allowance: Allowance
    private let maximumHeld: Int
    private let maximumSockets: Int

    init(settings: GatewaySettings) {
        let rate = settings.bytesPerSecond
        // Small, because a burst is processed without giving way to other sockets.
        allowance = Allowance(perSecond: rate, burst: rate / 8, milliseconds: WallClock.milliseconds)
        maximumHeld = settings.heldBytesPerTenant
        maximumSockets = settings.socketsPerTenant ?? max(1, settings.socketsMaximum / 2)
    }

    // MARK: time

    /// Bytes to charge for the members and elements of a message's JSON.
    static func cost(ofValues count: Int) -> Int { max(0, count - freeValues) * valueCost }

    /// Charges processed bytes against the rate limit.
    func charge(_ bytes: Int) { allowance.charge(bytes, milliseconds: WallClock.milliseconds) }

    /// Milliseconds until the sockets of this account are read again; 0 when they are not throttled.
    var debt: Int { allowance.debt(milliseconds: WallClock.milliseconds) }

    /// Calls `body` when it may read a page of a log, at once or later. `endRead` must follow.
    func beginRead(_ body: @escaping () -> Void) {
        guard reads == Self.maximumReads else {
            reads += 1
            return body()
        }
        waitingReads.append(body)
    }

    /// Ends a read that `beginRead` allowed, and starts the next waiting one.
    func endRead() {
        guard let next = waitingReads.popFirst() else { return reads -= 1 }
        next()
    }

    // MARK: memory

    func hold(_ bytes: Int) { held += bytes }
    func release(_ bytes: Int) { held -= bytes }

    /// Whether `bytes` more can be held. True for any size when nothing is held, so that one large request is always possible.
    func hasRoom(for bytes: Int) -> Bool { maximumHeld == 0 || held == 0 || held + bytes <= maximumHeld }

    /// Interrupts may hold a quarter more than everything else: they are what frees memory.
    func hasRoom(forInterrupt bytes: Int) -> Bool { maximumHeld == 0 || held == 0 || held + bytes <= maximumHeld + maximumHeld / 4 }

    var isOverfull: Bool { maximumHeld > 0 && held > maximumHeld }

    // MARK: sockets

    /// Counts one more registered socket.
    /// - Returns: false when the limit is reached.
    func admitSocket() -> Bool {
        guard maximumSockets == 0 || sockets < maximumSockets else { return false }
        sockets += 1
        return true
    }

    func removeSocket() { sockets -= 1 }
}

/// The accounts in use, by tenant and address. Holds them weakly: an account lives as long as a socket or session refers to it.
final class TrafficAccounts {
    private struct Reference { weak var account: TrafficAccount? }

    private enum Key: Hashable { case tenant(String), address(String) }

    private var accounts: [Key: Reference] = [:]
    private let settings: GatewaySettings

    init(settings: GatewaySettings) { self.settings = settings }

    func tenant(_ name: String) -> TrafficAccount { account(.tenant(name)) }
    func address(_ address: String) -> TrafficAccount { account(.address(address)) }

    private func account(_ key: Key) -> TrafficAccount {
        if let account = accounts[key]?.account { return account }
        let account = TrafficAccount(settings: settings)
        accounts[key] = Reference(account: account)
        return account
    }

    /// Removes the entries of released accounts. Called at every gateway heartbeat.
    func forgetUnused() { accounts = accounts.filter { $0.value.account != nil } }
}
