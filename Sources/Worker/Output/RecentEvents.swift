import Contract
import DequeModule

/// The last acknowledged events of a job, in case Redis comes back without them. Their bytes are stored one after the other: an array for each
/// event of one token would take three times as much memory.
struct RecentEvents {
    /// Maximum bytes of events kept. Redis loses the last second or so in a restart or a fail-over; this is about eight seconds of a fast text.
    static let maximumBytes = 16 << 10

    private var first = EventID(attempt: 0, sequence: 0)
    private var lengths: Deque<Int32> = []
    private var bytes: Deque<UInt8> = []

    /// Number of events.
    var count: Int { lengths.count }

    /// Adds an event, and removes the oldest ones beyond the maximum. An event that does not follow the last one replaces all.
    mutating func append(_ id: EventID, _ json: [UInt8]) {
        let isNext = id.attempt == first.attempt && id.sequence - first.sequence == count
        if !isNext {
            removeAll()
            first = id
        }
        guard json.count <= Self.maximumBytes, let length = Int32(exactly: json.count) else { return removeAll() }
        lengths.append(length)
        bytes.append(contentsOf: json)
        while bytes.count > Self.maximumBytes, let oldest = lengths.popFirst() {
            bytes.removeFirst(Int(oldest))
            first = first.next
        }
    }

    private mutating func removeAll() {
        lengths.removeAll(keepingCapacity: true)
        bytes.removeAll(keepingCapacity: true)
        first = EventID(attempt: 0, sequence: 0)
    }

    /// Removes and returns the events after an event.
    /// - Returns: nil, without a change, when the one that follows it is not known.
    mutating func remove(after id: EventID) -> [(id: EventID, json: [UInt8])]? {
        let next = id.next
        let index = next.sequence - first.sequence
        guard next.attempt == first.attempt, lengths.indices.contains(index) else { return nil }
        var start = lengths.prefix(index).reduce(0) { $0 + Int($1) }
        let kept = start
        var removed: [(id: EventID, json: [UInt8])] = []
        var current = next
        for length in lengths[index...] {
            removed.append((current, Array(bytes[start..<start + Int(length)])))
            start += Int(length)
            current = current.next
        }
        lengths.removeLast(lengths.count - index)
        bytes.removeLast(bytes.count - kept)
        return removed
    }
}
