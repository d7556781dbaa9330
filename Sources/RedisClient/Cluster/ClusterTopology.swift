/// Which node of a cluster serves which slots. A value without I/O.
struct ClusterTopology: Sendable, Equatable {
    /// A primary and its replicas.
    struct Shard: Sendable, Equatable {
        let primary: ServerAddress
        var replicas: [ServerAddress] = []
    }

    /// Shards with at least one slot, and nodes that a redirection has named.
    private(set) var shards: [Shard] = []
    /// For each slot the position in `shards` plus 1; 0 when no node is known.
    private var owners = [UInt16](repeating: 0, count: HashSlot.count)

    /// Knows no node.
    init() {}

    /// Reads the reply to CLUSTER SLOTS: elements of first slot, last slot, primary, replicas; a node is host, port, id and further facts.
    /// - Parameter host: the host that answered. It replaces a host that the node does not know or does not announce.
    /// - Returns: nil for a reply of another shape, and when no slot is served.
    init?(_ reply: RESPValue, from host: String) {
        guard let ranges = reply.array else { return nil }
        var positions: [ServerAddress: Int] = [:]
        for range in ranges {
            guard let parts = range.array, parts.count >= 3, let first = parts[0].integer, let last = parts[1].integer,
                (0..<HashSlot.count).contains(first), (first..<HashSlot.count).contains(last),
                let primary = Self.address(parts[2], from: host)
            else { return nil }
            let position = positions[primary] ?? shards.count
            if position == shards.count {
                guard position < HashSlot.count else { return nil }
                positions[primary] = position
                shards.append(Shard(primary: primary, replicas: parts.dropFirst(3).compactMap { Self.address($0, from: host) }))
            }
            for slot in first...last { owners[slot] = UInt16(position + 1) }
        }
        guard !shards.isEmpty else { return nil }
    }

    /// The address in `[host, port, id, …]`.
    private static func address(_ value: RESPValue, from host: String) -> ServerAddress? {
        guard let parts = value.array, parts.count >= 2, let port = parts[1].integer, (1...65_535).contains(port) else { return nil }
        let named = parts[0].string ?? ""
        return ServerAddress(host: named.isEmpty || named == "?" ? host : named, port: port)
    }

    /// The primary that serves a slot; nil when none is known.
    func owner(of slot: Int) -> ServerAddress? { position(of: slot).map { shards[$0].primary } }

    /// The position in `shards` of the shard that serves a slot; nil when none is known.
    func position(of slot: Int) -> Int? {
        let owner = Int(owners[slot])
        return owner == 0 ? nil : owner - 1
    }

    /// Number of slots that no node serves.
    var uncovered: Int { owners.count { $0 == 0 } }

    /// Assigns a slot to the node that a redirection has named.
    /// - Returns: whether that changed anything.
    @discardableResult
    mutating func move(_ slot: Int, to address: ServerAddress) -> Bool {
        guard (0..<HashSlot.count).contains(slot), owner(of: slot) != address else { return false }
        let position = shards.firstIndex { $0.primary == address } ?? shards.count
        if position == shards.count {
            // A node with slots in a real cluster; a limit, because the address comes from outside.
            guard shards.count < HashSlot.count else { return false }
            shards.append(Shard(primary: address))
        }
        owners[slot] = UInt16(position + 1)
        return true
    }

    /// The slots of a shard as ranges, in order.
    func slots(of shard: Int) -> [ClosedRange<Int>] {
        var ranges: [ClosedRange<Int>] = []
        for slot in 0..<HashSlot.count where Int(owners[slot]) == shard + 1 {
            if let last = ranges.last, last.upperBound == slot - 1 {
                ranges[ranges.count - 1] = last.lowerBound...slot
            } else {
                ranges.append(slot...slot)
            }
        }
        return ranges
    }

    /// All known nodes, primaries first.
    var nodes: [ServerAddress] {
        var seen: Set<ServerAddress> = []
        return (shards.map(\.primary) + shards.flatMap(\.replicas)).filter { seen.insert($0).inserted }
    }

    /// The slots whose owner differs from another topology.
    func changedSlots(from other: ClusterTopology) -> [Int] {
        (0..<HashSlot.count).filter { owner(of: $0) != other.owner(of: $0) }
    }
}

/// A reply that names the node which serves a slot.
struct Redirection: Equatable {
    let slot: Int
    let address: ServerAddress

    /// Parses `MOVED <slot> <host>:<port>` or `ASK <slot> <host>:<port>`; nil for other texts.
    /// - Parameter host: the host that answered, for an empty host in the text.
    init?(_ text: String, from host: String) {
        let words = text.split(separator: " ")
        guard words.count >= 3, words[0] == "MOVED" || words[0] == "ASK", let slot = Int(words[1]), (0..<HashSlot.count).contains(slot),
            let colon = words[2].lastIndex(of: ":")
        else { return nil }
        let named = words[2][..<colon]
        let port = words[2][words[2].index(after: colon)...]
        guard let address = ServerAddress(host: named.isEmpty || named == "?" ? host : String(named), port: String(port)) else {
            return nil
        }
        self.slot = slot
        self.address = address
    }
}
