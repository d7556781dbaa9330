import Support

/// An ordered list of members. A lookup returns the last of several members with the same name, like most parsers.
///
/// Names are equal when their UTF-8 is equal. A lookup takes constant time, independent of the number of members.
package struct JSONObject: Sendable, Hashable {
    package struct Member: Sendable, Hashable {
        package var name: String
        package var value: JSON

        package init(name: String, value: JSON) {
            self.name = name
            self.value = value
        }
    }

    /// Number of members up to which a linear search is as fast as an index.
    private static let linearSearchMaximum = 8

    package private(set) var members: [Member]
    /// The last position of each name in `members`; empty while there are at most `linearSearchMaximum`.
    private var index = NameIndex()

    package init(_ members: [Member] = []) {
        self.members = members
        rebuildIndex()
    }

    package var names: [String] { members.map(\.name) }
    package var isEmpty: Bool { members.isEmpty }

    /// A name that several members have; nil when all names differ.
    package var repeatedName: String? {
        if members.count > Self.linearSearchMaximum, index.count == members.count { return nil }
        return members.indices.first { position(of: members[$0].name) != $0 }.map { members[$0].name }
    }

    package subscript(_ name: String) -> JSON? {
        get { position(of: name).map { members[$0].value } }
        set {
            guard let newValue else {
                guard position(of: name) != nil else { return }
                members.removeAll { $0.name.hasSameBytes(as: name) }
                return rebuildIndex()
            }
            if let position = position(of: name) { members[position].value = newValue } else { add(Member(name: name, value: newValue)) }
        }
    }

    /// Appends a member with a new name.
    /// - Returns: false, without a change, when a member with this name exists.
    package mutating func append(_ member: Member) -> Bool {
        append(member, hash: needsHash ? NameIndex.hash(member.name) : 0)
    }

    /// Whether `append(_:hash:)` uses the hash.
    var needsHash: Bool { members.count > Self.linearSearchMaximum }

    /// Appends a member with a new name.
    /// - Parameter hash: `NameIndex.hash` of the name when `needsHash`, else any value.
    /// - Returns: false, without a change, when a member with this name exists.
    mutating func append(_ member: Member, hash: UInt32) -> Bool {
        if needsHash {
            guard index.insert(members.count, hash: hash, replacing: false, isSame: { members[$0].name.hasSameBytes(as: member.name) })
            else { return false }
            members.append(member)
            return true
        }
        guard position(of: member.name) == nil else { return false }
        add(member)
        return true
    }

    private mutating func add(_ member: Member) {
        members.append(member)
        if members.count > Self.linearSearchMaximum + 1 {
            index.insert(
                members.count - 1, hash: NameIndex.hash(member.name), replacing: true,
                isSame: { members[$0].name.hasSameBytes(as: member.name) })
        } else if members.count > Self.linearSearchMaximum {
            rebuildIndex()
        }
    }

    private func position(of name: String) -> Int? {
        guard members.count > Self.linearSearchMaximum else { return members.lastIndex { $0.name.hasSameBytes(as: name) } }
        return index.position(hash: NameIndex.hash(name)) { members[$0].name.hasSameBytes(as: name) }
    }

    private mutating func rebuildIndex() {
        index = NameIndex()
        guard members.count > Self.linearSearchMaximum else { return }
        index.reserve(members.count)
        for position in members.indices {
            let name = members[position].name
            index.insert(position, hash: NameIndex.hash(name), replacing: true, isSame: { members[$0].name.hasSameBytes(as: name) })
        }
    }

    package static func == (left: JSONObject, right: JSONObject) -> Bool { left.members == right.members }

    package func hash(into hasher: inout Hasher) { hasher.combine(members) }
}

/// A hash table from names to their positions in a list of members. It stores no names: its caller compares them.
///
/// Filling it takes about a fifth of the time of a `Dictionary` of strings, which matters for documents with tens of thousands of names.
struct NameIndex: Sendable {
    /// Open addressing with linear probing; the number of slots is a power of two. A slot holds the hash in its upper half and the position
    /// plus one in its lower half; 0: free.
    private var slots: [UInt64] = []
    private(set) var count = 0

    /// The hash of a name. Its seed is random for each process, so that a client cannot choose names that collide.
    static func hash(_ bytes: Span<UInt8>) -> UInt32 {
        var hasher = Hasher()
        hasher.combine(copying: bytes)
        return UInt32(truncatingIfNeeded: hasher.finalize())
    }

    static func hash(_ name: String) -> UInt32 { hash(name.utf8Span.span) }

    /// The position of the name with this hash for which `isSame` is true; nil when there is none.
    func position(hash: UInt32, isSame: (Int) -> Bool) -> Int? {
        guard !slots.isEmpty else { return nil }
        let mask = slots.count - 1
        var slot = Int(hash) & mask
        while slots[slot] != 0 {
            let position = Self.position(slots[slot])
            if UInt32(truncatingIfNeeded: slots[slot] >> 32) == hash, isSame(position) { return position }
            slot = (slot + 1) & mask
        }
        return nil
    }

    /// Adds a position.
    /// - Parameters:
    ///   - replacing: whether the position of the same name is replaced.
    ///   - isSame: whether the name at a position is the added one.
    /// - Returns: false when the same name has a position.
    @discardableResult
    mutating func insert(_ position: Int, hash: UInt32, replacing: Bool, isSame: (Int) -> Bool) -> Bool {
        reserve(count + 1)
        let mask = slots.count - 1
        var slot = Int(hash) & mask
        while slots[slot] != 0 {
            if UInt32(truncatingIfNeeded: slots[slot] >> 32) == hash, isSame(Self.position(slots[slot])) {
                if replacing { slots[slot] = Self.slot(position, hash) }
                return false
            }
            slot = (slot + 1) & mask
        }
        slots[slot] = Self.slot(position, hash)
        count += 1
        return true
    }

    /// Makes room for this number of names, with at most three quarters of the slots taken.
    mutating func reserve(_ names: Int) {
        guard names * 4 > slots.count * 3 else { return }
        var size = max(32, slots.count)
        while names * 4 > size * 3 { size *= 2 }
        var larger = [UInt64](repeating: 0, count: size)
        for entry in slots where entry != 0 {
            var slot = Int(truncatingIfNeeded: entry >> 32) & (size - 1)
            while larger[slot] != 0 { slot = (slot + 1) & (size - 1) }
            larger[slot] = entry
        }
        slots = larger
    }

    private static func slot(_ position: Int, _ hash: UInt32) -> UInt64 {
        UInt64(hash) << 32 | UInt64(UInt32(truncatingIfNeeded: position + 1))
    }
    private static func position(_ slot: UInt64) -> Int { Int(UInt32(truncatingIfNeeded: slot)) - 1 }
}

extension String {
    /// Whether both strings have the same UTF-8. Unlike `==`, canonically equivalent strings differ.
    fileprivate func hasSameBytes(as other: String) -> Bool { utf8Span.span.equals(other.utf8Span.span) }
}
