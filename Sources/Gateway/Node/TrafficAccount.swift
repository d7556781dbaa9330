import NIOCore

/// What one tenant's sockets and sessions cost this gateway, or those of one address that are not registered yet. Lives on the event loop.
///
/// Time is shared by an allowance of bytes a second: received, parsed and written because of what was received. A socket whose account is in
/// debt is not read. Memory is shared by the bytes that the gateway holds: messages that have come in part, and what waits for Redis.
final class TrafficAccount {
    /// Charged for a frame beside its bytes.
    static let frameCost = 512
    /// A socket may hold so much whatever the others of its account hold.
    static let reserve = 16 << 10

    /// Logs that are read for replays at a time; others wait in line.
    private static let maximumReads = 8

    private var reads = 0
    private var waitingReads = CircularBuffer<() -> Void>()
    private(set) var held = 0
    /// Registered sockets.
    private(set) var sockets = 0
    private var allowance: Allowance
    private let maximumHeld: Int
    private let maximumSockets: Int

    init(settings: GatewaySettings) {
        let rate = settings.bytesPerSecond
        // The loop works on a burst in one go, while others wait.
        allowance = Allowance(perSecond: rate, burst: rate / 8, milliseconds: WallClock.milliseconds)
        maximumHeld = settings.heldBytesPerTenant
        maximumSockets = settings.socketsPerTenant ?? max(1, settings.socketsMaximum / 2)
    }

    // MARK: time

    func charge(_ bytes: Int) { allowance.charge(bytes, milliseconds: WallClock.milliseconds) }

    /// Milliseconds until sockets of this account are read again; 0: now.
    var debt: Int { allowance.debt(milliseconds: WallClock.milliseconds) }

    /// Calls `body` when it may read a page of a log; `endRead` must follow.
    func beginRead(_ body: @escaping () -> Void) {
        guard reads == Self.maximumReads else {
            reads += 1
            return body()
        }
        waitingReads.append(body)
    }

    func endRead() {
        guard let next = waitingReads.popFirst() else { return reads -= 1 }
        next()
    }

    // MARK: memory

    func hold(_ bytes: Int) { held += bytes }
    func release(_ bytes: Int) { held -= bytes }

    /// An account that holds nothing has room for anything.
    func hasRoom(for bytes: Int) -> Bool { maximumHeld == 0 || held == 0 || held + bytes <= maximumHeld }

    /// Interrupts may hold a quarter more than everything else: they are what frees memory.
    func hasRoom(forInterrupt bytes: Int) -> Bool { maximumHeld == 0 || held == 0 || held + bytes <= maximumHeld + maximumHeld / 4 }

    var isOverfull: Bool { maximumHeld > 0 && held > maximumHeld }

    // MARK: sockets

    /// Counts one more, if there is room for it.
    func admitSocket() -> Bool {
        guard maximumSockets == 0 || sockets < maximumSockets else { return false }
        sockets += 1
        return true
    }

    func removeSocket() { sockets -= 1 }
}

/// The accounts in use: each lives as long as a socket or a session that refers to it.
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

    /// Called at every beat.
    func forgetUnused() { accounts = accounts.filter { $0.value.account != nil } }
}
