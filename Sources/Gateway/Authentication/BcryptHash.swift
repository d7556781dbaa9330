import CCrypt

/// A bcrypt hash, `$2b$12$<22 characters of salt><31 of hash>`, the format of htpasswd, PHP and most frameworks. Verified by libcrypt; this
/// is the only use of C in the module.
struct BcryptHash: Sendable, Hashable {
    /// Allowed costs: base-2 logarithms of the number of rounds. 4 is bcrypt's minimum; 16 takes seconds per login, and higher costs would
    /// stall all other logins.
    static let costs = 4...16
    private static let length = 60
    private static let digestLength = 31
    private static let alphabet = Set("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789".utf8)

    private let text: String
    private let logarithm: Int

    /// Parses a hash.
    /// - Returns: nil unless the text is `$2a$`, `$2b$` or `$2y$`, a cost of two digits within `costs`, and 53 characters. `$2x$` is
    ///   rejected: it marks hashes of a faulty implementation in which different passwords collide.
    init?(_ text: some StringProtocol) {
        let bytes = Array(text.utf8)
        guard bytes.count == Self.length, ["$2a$", "$2b$", "$2y$"].contains(text.prefix(4)), bytes[6] == UInt8(ascii: "$"),
            bytes[4..<6].allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
            bytes[7...].allSatisfy(Self.alphabet.contains)
        else { return nil }
        logarithm = Int(bytes[4] - UInt8(ascii: "0")) * 10 + Int(bytes[5] - UInt8(ascii: "0"))
        guard Self.costs.contains(logarithm) else { return nil }
        self.text = String(text)
    }

    /// The approximate time of a verification in microseconds; see `PasswordHash.cost`.
    var cost: Int { 61 << logarithm }

    /// Whether a password has this hash. Takes about 250 ms at cost 12; must not run on an event loop. bcrypt uses only the first 72 bytes
    /// of a password and stops at a NUL byte, so a password with a NUL never matches.
    func matches(_ password: String) -> Bool {
        guard !password.utf8.contains(0) else { return false }
        // crypt_r requires zeroed memory before its first use. The structure is 32 KB, so it is allocated on the heap.
        let data = UnsafeMutablePointer<crypt_data>.allocate(capacity: 1)
        defer { unsafe data.deallocate() }
        unsafe UnsafeMutableRawPointer(data).initializeMemory(as: UInt8.self, repeating: 0, count: MemoryLayout<crypt_data>.size)
        guard let made = unsafe crypt_r(password, text, data) else { return false }
        // Compare only the digest: some programs set unused bits of the salt before it, which libcrypt clears.
        return unsafe APIKeys.equal(String(cString: made).utf8.suffix(Self.digestLength), text.utf8.suffix(Self.digestLength))
    }
}
