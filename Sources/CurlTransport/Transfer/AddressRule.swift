/// The network addresses that may be connected to.
package struct AddressRule: Sendable, Equatable {
    /// A network: the first `length` bits of `address`.
    private struct Network: Sendable, Equatable {
        var address: [UInt8]
        var length: Int

        func contains(_ other: [UInt8]) -> Bool {
            guard other.count == address.count else { return false }
            let whole = length / 8
            guard address.prefix(whole) == other.prefix(whole) else { return false }
            let rest = length % 8
            guard rest > 0 else { return true }
            let mask = UInt8(truncatingIfNeeded: 0xFF << (8 - rest))
            return address[whole] & mask == other[whole] & mask
        }
    }

    private var networks: [Network] = []
    private var allowsPublic = false
    private var allowsAll = false

    /// Only addresses of the public internet.
    package static let publicOnly: AddressRule = {
        var rule = AddressRule()
        rule.allowsPublic = true
        return rule
    }()

    private init() {}

    /// Parses a list, separated by commas: `public`, `any`, addresses and networks (`10.0.0.0/8`, `fd00::/8`).
    /// - Returns: nil for anything else.
    package init?(_ text: String) {
        for part in text.split(separator: ",") {
            let item = part.filter { $0 != " " }
            switch item {
            case "": continue
            case "public": allowsPublic = true
            case "any": allowsAll = true
            default:
                guard let network = Self.network(item) else { return nil }
                networks.append(network)
            }
        }
        guard allowsPublic || allowsAll || !networks.isEmpty else { return nil }
    }

    private static func network(_ text: String) -> Network? {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard let first = parts.first, parts.count <= 2, let address = bytes(of: String(first)) else { return nil }
        guard parts.count == 2 else { return Network(address: address, length: 8 * address.count) }
        guard let length = Int(parts[1]), (0...8 * address.count).contains(length) else { return nil }
        return Network(address: address, length: length)
    }

    /// The bytes of an address in text; nil when it is none.
    private static func bytes(of text: String) -> [UInt8]? {
        if text.contains(":") { return version6(text) }
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        let bytes = parts.compactMap { $0.count <= 3 ? UInt8($0) : nil }
        return bytes.count == 4 ? bytes : nil
    }

    private static func version6(_ text: String) -> [UInt8]? {
        func groups(_ text: Substring) -> [UInt8]? {
            guard !text.isEmpty else { return [] }
            var bytes: [UInt8] = []
            for group in text.split(separator: ":", omittingEmptySubsequences: false) {
                guard (1...4).contains(group.count), let value = UInt16(group, radix: 16) else { return nil }
                bytes += [UInt8(value >> 8), UInt8(value & 0xFF)]
            }
            return bytes
        }
        guard let gap = text.firstRange(of: "::") else {
            let bytes = groups(text[...])
            return bytes?.count == 16 ? bytes : nil
        }
        guard let head = groups(text[..<gap.lowerBound]), let tail = groups(text[gap.upperBound...]), head.count + tail.count < 16 else {
            return nil
        }
        return head + [UInt8](repeating: 0, count: 16 - head.count - tail.count) + tail
    }

    /// Whether an address may be connected to.
    /// - Parameter address: 4 or 16 bytes in network order; anything else is not allowed, unless everything is.
    package func allows(_ address: [UInt8]) -> Bool {
        if allowsAll { return true }
        let address = Self.embedded(address) ?? address
        return networks.contains { $0.contains(address) } || allowsPublic && Self.isPublic(address)
    }

    /// The IPv4 address in an IPv6 address of a form that leads to it: mapped (`::ffff:0:0/96`), NAT64 (`64:ff9b::/96`), 6to4 (`2002::/16`).
    private static func embedded(_ address: [UInt8]) -> [UInt8]? {
        guard address.count == 16 else { return nil }
        let zeros = [UInt8](repeating: 0, count: 8)
        if Array(address[0..<12]) == zeros + [0, 0, 0xFF, 0xFF] { return Array(address[12...]) }
        if Array(address[0..<12]) == [0, 0x64, 0xFF, 0x9B] + zeros { return Array(address[12...]) }
        if address[0] == 0x20, address[1] == 0x02 { return Array(address[2..<6]) }
        return nil
    }

    /// Networks that are not of the public internet (IANA special-purpose address registries).
    private static let special: [Network] = [
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
        "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "2001::/23", "2001:db8::/32", "3fff::/20",
    ].compactMap(network)
    /// The only IPv6 addresses that are assigned to hosts of the public internet.
    private static let global = Network(address: [0x20] + [UInt8](repeating: 0, count: 15), length: 3)

    private static func isPublic(_ address: [UInt8]) -> Bool {
        guard !special.contains(where: { $0.contains(address) }) else { return false }
        return address.count == 4 || global.contains(address)
    }
}
