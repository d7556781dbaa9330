/// The order in which waiting password checks run: round robin over client addresses and, within an address, over account names. No I/O.
///
/// Whoever floods the queue waits behind its own checks. When the queue is full, a check of the longest line is dropped, chosen at random:
/// dropping the newest would shut out a right password for as long as wrong ones for the same account keep coming from the same address.
struct PasswordQueue<Check: Sendable>: Sendable {
    /// Checks that may wait, of one address and in all.
    static var maximumPerAddress: Int { 256 }
    static var maximum: Int { 1_024 }

    private struct Account: Sendable {
        let name: String
        /// At least one.
        var checks: [Check]
    }

    private struct Address: Sendable {
        let name: String
        /// At least one, in the order of their turns.
        var accounts: [Account]
        var count: Int { accounts.reduce(0) { $0 + $1.checks.count } }
    }

    /// In the order of their turns.
    private var addresses: [Address] = []
    private(set) var count = 0

    /// - Returns: the check that is dropped in its place, if the queue is full; it may be the same one.
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

    /// The next check to run; nil when none waits.
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

    /// Removes one of the account of this address that has the most checks waiting.
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
