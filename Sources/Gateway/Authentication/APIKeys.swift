import Crypto

/// The API keys of `SLUICE_API_KEYS` and `SLUICE_API_KEYS_FILE`, stored as SHA-256 digests.
struct APIKeys: Sendable {
    /// Minimum length of a key in bytes. Shorter keys can be guessed.
    static let minimumLength = 16

    private var entries: [(digest: [UInt8], tenant: Tenant)] = []

    var isEmpty: Bool { entries.isEmpty }

    /// Adds the entries of a setting's value.
    /// - Throws: `invalidKeys` with the number of the invalid entry, never with its text.
    mutating func add(_ text: String, setting: String) throws(AuthenticationError) {
        var number = 0
        for line in SettingFile.lines(text) {
            for part in line.text.split(separator: ",") where !part.trimmed.isEmpty {
                number += 1
                let fields = part.trimmed.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
                guard fields.count == 2, !fields[1].isEmpty, let tenant = Tenant(checking: String(fields[0])) else {
                    throw AuthenticationError(.invalidKeys, "\(setting): entry \(number) must have the form tenant:key")
                }
                guard fields[1].utf8.count >= Self.minimumLength else {
                    throw AuthenticationError(
                        .invalidKeys,
                        "\(setting): the key of tenant \(tenant.name) (entry \(number)) is shorter than \(Self.minimumLength) bytes; create one "
                            + "with: openssl rand -hex 16")
                }
                let digest = Self.digest(String(fields[1]))
                guard !entries.contains(where: { $0.digest == digest && $0.tenant != tenant }) else {
                    throw AuthenticationError(
                        .invalidKeys, "\(setting): the key of entry \(number) is also another tenant's; keys must be unique")
                }
                entries.append((digest, tenant))
            }
        }
        guard number > 0 else { throw AuthenticationError(.invalidKeys, "\(setting) contains no key; list entries of the form tenant:key") }
    }

    /// The tenant of a key; nil for an unknown key. Compares all entries in constant time, so that the time does not reveal anything about
    /// the keys.
    func tenant(of key: String) -> Tenant? {
        let digest = Self.digest(key)
        var found: Tenant?
        for entry in entries where Self.equal(entry.digest, digest) { found = entry.tenant }
        return found
    }

    /// The SHA-256 of a text.
    static func digest(_ text: String) -> [UInt8] { Array(SHA256.hash(data: Array(text.utf8))) }

    /// Compares two byte sequences in a time that depends only on their lengths.
    static func equal(_ left: some Collection<UInt8>, _ right: some Collection<UInt8>) -> Bool {
        guard left.count == right.count else { return false }
        var difference: UInt8 = 0
        for (left, right) in zip(left, right) { difference |= left ^ right }
        return difference == 0
    }
}
