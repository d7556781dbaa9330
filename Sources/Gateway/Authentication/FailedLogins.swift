/// Refused credentials by client address: how long the answer to one more is held back, and whether it is logged. No I/O.
///
/// Only refusals are held back. A right credential is answered at once whatever came from its address before, so nobody can lock others out.
struct FailedLogins {
    /// Refusals of an address that are answered at once; one is forgotten every `forgottenEvery` milliseconds.
    static let tolerated = 10
    static let forgottenEvery = 5_000
    /// The first answer that is held back, in milliseconds; each further one twice as long, up to `maximumDelay`.
    static let firstDelay = 250
    static let maximumDelay = 4_000
    /// Addresses that are remembered. Beyond it those with the fewest refusals are forgotten.
    static let maximumAddresses = 10_000
    /// Log lines a minute, of all addresses together.
    static let linesPerMinute = 20

    struct Answer: Equatable {
        /// Milliseconds.
        var delay: Int
        /// Whether this refusal is logged, and how many since the last line were not.
        var isLogged: Bool
        var unlogged: Int
    }

    private struct Record {
        var failures: Int
        /// When `failures` was last reduced.
        var since: Int
    }

    private var records: [String: Record] = [:]
    private var minute = Int.min
    private var lines = 0
    private var unlogged = 0

    var count: Int { records.count }

    /// Counts a refusal.
    /// - Parameter now: milliseconds of any clock that does not go back.
    mutating func add(address: String, now: Int) -> Answer {
        let address = Self.group(address)
        var record = records[address] ?? Record(failures: 0, since: now)
        let forgotten = max(0, now - record.since) / Self.forgottenEvery
        record.since += forgotten * Self.forgottenEvery
        // Beyond the longest delay nothing more is learnt.
        record.failures = min(max(0, record.failures - forgotten) + 1, 4 * Self.tolerated)
        if record.failures == 1 { record.since = now }
        if records[address] == nil, records.count >= Self.maximumAddresses { forget() }
        records[address] = record
        return answer(Self.delay(after: record.failures), now: now)
    }

    static func delay(after failures: Int) -> Int {
        let beyond = failures - tolerated
        return beyond <= 0 ? 0 : min(firstDelay << min(beyond - 1, 8), maximumDelay)
    }

    private mutating func answer(_ delay: Int, now: Int) -> Answer {
        if now / 60_000 != minute {
            minute = now / 60_000
            lines = 0
        }
        guard lines < Self.linesPerMinute else {
            unlogged += 1
            return Answer(delay: delay, isLogged: false, unlogged: 0)
        }
        lines += 1
        defer { unlogged = 0 }
        return Answer(delay: delay, isLogged: true, unlogged: unlogged)
    }

    /// Sorting is paid for by the many additions that it makes room for.
    private mutating func forget() {
        let kept = records.sorted { $0.value.failures > $1.value.failures }.prefix(Self.maximumAddresses / 2)
        records = Dictionary(uniqueKeysWithValues: kept.map { ($0.key, $0.value) })
    }

    /// An IPv6 client chooses the last 64 bits of its address: all that share the first ones count as one.
    private static func group(_ address: String) -> String {
        guard address.contains(":") else { return address }
        // An IPv4 client of a listener for both.
        if address.contains("."), let colon = address.lastIndex(of: ":") { return String(address[address.index(after: colon)...]) }
        let parts = address.split(separator: ":", omittingEmptySubsequences: false)
        guard let gap = parts.dropFirst().firstIndex(of: ""), gap < 4 else { return parts.prefix(4).joined(separator: ":") }
        return parts.prefix(gap).joined(separator: ":") + "::"
    }
}
