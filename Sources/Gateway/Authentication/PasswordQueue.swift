/// The queue of waiting password checks: round robin over client addresses and, within an address, over account names. A state machine
/// without I/O.
///
/// A client that floods the queue waits behind its own checks. When the queue is full, a random check of the account with the most checks
/// is dropped. Dropping the newest would lock out a correct password as long as wrong ones for the same account keep arriving from the same
/// address.
struct PasswordQueue<Check: Sendable>: Sendable {
    /// Maximum number of waiting checks of one address.
    static var maximumPerAddress: Int { 256 }
    /// Maximum number of waiting checks in total.
    static var maximum: Int { 1_024 }

    private struct Account: Sendable {
        let name: String
        /// Not empty; oldest first.
        var checks: [Check]
    }

    private struct Address: Sendable {
        let name: String
        /// Not empty; next turn first.
        var accounts: [Account]
        var count: Int { accounts.reduce(0) { $0 + $1.checks.count } }
    }

    /// Addresses with waiting checks; next turn first.
    private var addresses: [Address] = []
    private(set) var count = 0

    /// Adds a check.
    /// - Returns: the check that was dropped because the queue is full, possibly the added one; nil otherwise.
    mutating func add(_ check: Check, address: String, account: String) -> Check? {
        count += 1
        let place = addresses.firstIndex { $0.name == address } ?? addresses.endIndex
        if place == addresses.endIndex { addresses.append(Address(name: address, accounts: [])) }
        if let line = addresses[place].accounts.firstIndex(where: { $0.name == account }) {
            addresses[place].accounts[line].checks.append(check)
        } else {
            addresses[place].accounts.append(Account(name: account, checks: [check]))
        }
        if addresses[place].count > Self.maximumPerAddress { return drop(from: place) }
        guard count > Self.maximum else { return nil }
        return addresses.indices.max { addresses[$0].count < addresses[$1].count }.map { drop(from: $0) }
    }

    /// Removes and returns the next check to run; nil when none is waiting.
    mutating func next() -> Check? {
        guard !addresses.isEmpty else { return nil }
        var address = addresses.removeFirst()
        var account = address.accounts.removeFirst()
        let check = account.checks.removeFirst()
        if !account.checks.isEmpty { address.accounts.append(account) }
        if !address.accounts.isEmpty { addresses.append(address) }
        count -= 1
        return check
    }

    /// Removes a random check of the address's account with the most waiting checks.
    private mutating func drop(from place: Int) -> Check {
        let accounts = addresses[place].accounts
        let line = accounts.indices.max { accounts[$0].checks.count < accounts[$1].checks.count } ?? 0
        let check = addresses[place].accounts[line].checks.remove(at: Int.random(in: accounts[line].checks.indices))
        if addresses[place].accounts[line].checks.isEmpty { addresses[place].accounts.remove(at: line) }
        if addresses[place].accounts.isEmpty { addresses.remove(at: place) }
        count -= 1
        return check
    }
}
