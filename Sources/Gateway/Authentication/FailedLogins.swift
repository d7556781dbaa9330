/// Counts refused credentials per client address and decides how long the response to the next one is delayed and whether it is logged. A
/// state machine without I/O.
///
/// Only refusals are delayed. A valid credential is answered immediately regardless of earlier failures, so an attacker cannot lock others
/// out.
struct FailedLogins {
    /// Refusals of an address that are answered without delay. The count decreases by one every `forgottenEvery` milliseconds.
    static let tolerated = 10
    static let forgottenEvery = 5_000
    /// The first delay, in milliseconds. It doubles with each further refusal, up to `maximumDelay`.
    static let firstDelay = 250
    static let maximumDelay = 4_000
    /// Maximum number of stored addresses. When it is reached, the half with the fewest refusals is removed.
    static let maximumAddresses = 10_000
    /// Maximum log lines per minute, for all addresses together.
    static let linesPerMinute = 20

    /// How to respond to a refused credential.
    struct Answer: Equatable {
        /// The delay of the response, in milliseconds.
        var delay: Int
        /// Whether this refusal is logged.
        var isLogged: Bool
        /// Refusals since the last log line that were not logged; 0 when this one is not logged.
        var unlogged: Int
    }

    private struct Record {
        var failures: Int
        /// The time of the last decrease of `failures`, in milliseconds.
        var since: Int
    }

    private var records: [String: Record] = [:]
    private var minute = Int.min
    private var lines = 0
    private var unlogged = 0

    var count: Int { records.count }

    /// Counts a refusal.
    /// - Parameter now: milliseconds of a monotonic clock.
    mutating func add(address: String, now: Int) -> Answer {
        let address = Self.group(address)
        var record = records[address] ?? Record(failures: 0, since: now)
        let forgotten = max(0, now - record.since) / Self.forgottenEvery
        record.since += forgotten * Self.forgottenEvery
        // Higher counts would not change the delay, only the time until it decreases.
        record.failures = min(max(0, record.failures - forgotten) + 1, 4 * Self.tolerated)
        if record.failures == 1 { record.since = now }
        if records[address] == nil, records.count >= Self.maximumAddresses { forget() }
        records[address] = record
        return answer(Self.delay(after: record.failures), now: now)
    }

    /// The delay in milliseconds after a number of refusals.
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

    /// Removes half of the addresses. The cost of sorting is amortized over the additions that follow.
    private mutating func forget() {
        let kept = records.sorted { $0.value.failures > $1.value.failures }.prefix(Self.maximumAddresses / 2)
        records = Dictionary(uniqueKeysWithValues: kept.map { ($0.key, $0.value) })
    }

    /// The address under which refusals are counted. For IPv6 it is the first 64 bits, because a client can choose the others.
    private static func group(_ address: String) -> String {
        guard address.contains(":") else { return address }
        // An IPv4-mapped address, from an IPv4 client of a dual-stack listener.
        if address.contains("."), let colon = address.lastIndex(of: ":") { return String(address[address.index(after: colon)...]) }
        let parts = address.split(separator: ":", omittingEmptySubsequences: false)
        guard let gap = parts.dropFirst().firstIndex(of: ""), gap < 4 else { return parts.prefix(4).joined(separator: ":") }
        return parts.prefix(gap).joined(separator: ":") + "::"
    }
}
