import Crypto

/// The keys of `SLUICE_API_KEYS`, kept as their SHA-256 digests.
struct APIKeys: Sendable {
    /// Bytes of a key, at least: shorter ones can be guessed.
    static let minimumLength = 16

    private var entries: [(digest: [UInt8], tenant: Tenant)] = []

    var isEmpty: Bool { entries.isEmpty }

    /// - Throws: `invalidKeys` that tells the entry by its number.
    mutating func add(_ text: String, setting: String) throws(AuthenticationError) {
        var number = 0
        for line in SettingFile.lines(text) {
            for part in line.text.split(separator: ",") where !part.trimmed.isEmpty {
                number += 1
                let fields = part.trimmed.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
                guard fields.count == 2, !fields[1].isEmpty, let tenant = Tenant(checking: String(fields[0])) else {
                    throw AuthenticationError(.invalidKeys, "\(setting): entry \(number) is not tenant:key")
                }
                guard fields[1].utf8.count >= Self.minimumLength else {
                    throw AuthenticationError(
                        .invalidKeys,
                        "\(setting): the key of tenant \(tenant.name) (entry \(number)) has fewer than \(Self.minimumLength) bytes; make one "
                            + "with: openssl rand -hex 16")
                }
                let digest = Self.digest(String(fields[1]))
                guard !entries.contains(where: { $0.digest == digest && $0.tenant != tenant }) else {
                    throw AuthenticationError(.invalidKeys, "\(setting): the key of entry \(number) belongs to two tenants")
                }
                entries.append((digest, tenant))
            }
        }
        guard number > 0 else { throw AuthenticationError(.invalidKeys, "\(setting) holds no key; it is a list of tenant:key") }
    }

    /// Looks at every entry and every byte, whatever it finds, so that the time says nothing of the keys.
    func tenant(of key: String) -> Tenant? {
        let digest = Self.digest(key)
        var found: Tenant?
        for entry in entries where Self.equal(entry.digest, digest) { found = entry.tenant }
        return found
    }

    static func digest(_ text: String) -> [UInt8] { Array(SHA256.hash(data: Array(text.utf8))) }

    /// In a time that depends on the lengths alone.
    static func equal(_ left: some Collection<UInt8>, _ right: some Collection<UInt8>) -> Bool {
        guard left.count == right.count else { return false }
        var difference: UInt8 = 0
        for (left, right) in zip(left, right) { difference |= left ^ right }
        return difference == 0
    }
}
