import CCrypt

/// A bcrypt hash, `$2b$12$<22 characters of salt><31 of hash>`, as htpasswd, PHP and most frameworks write it. Verified by libcrypt, this
/// room's only door to C.
struct BcryptHash: Sendable, Hashable {
    /// The logarithm to base 2 of the rounds. 4 is bcrypt's least; 16 takes seconds, and a login that does is one that stalls every other.
    static let costs = 4...16
    private static let length = 60
    private static let digestLength = 31
    private static let alphabet = Set("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789".utf8)

    private let text: String
    private let logarithm: Int

    /// - Returns: nil for anything else than `$2a$`, `$2b$` or `$2y$`, a cost of two digits and 53 characters. `$2x$` marks hashes of an
    /// implementation that
    ///   took other passwords for the same, and is refused.
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

    /// See `PasswordHash.cost`.
    var cost: Int { 61 << logarithm }

    /// Takes 250 ms at cost 12: never on an event loop. bcrypt takes the first 72 bytes of a password and ends at a NUL, so a password with
    /// one is never right.
    func matches(_ password: String) -> Bool {
        guard !password.utf8.contains(0) else { return false }
        let size = MemoryLayout<crypt_data>.size
        // All zeros is how it must be before its first use; 32 KB, which a thread's stack need not hold.
        let data = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: MemoryLayout<crypt_data>.alignment)
        data.initializeMemory(as: UInt8.self, repeating: 0, count: size)
        defer { data.deallocate() }
        guard let made = crypt_r(password, text, data.assumingMemoryBound(to: crypt_data.self)) else { return false }
        // What stands before it is the salt, of which some programs write unused bits that libcrypt leaves out.
        return APIKeys.equal(String(cString: made).utf8.suffix(Self.digestLength), text.utf8.suffix(Self.digestLength))
    }
}
