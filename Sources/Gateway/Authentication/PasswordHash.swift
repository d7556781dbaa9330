import Crypto
import CryptoExtras

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// A password hash from the accounts file.
enum PasswordHash: Sendable, Hashable {
    case scrypt(ScryptHash)
    case bcrypt(BcryptHash)

    /// - Returns: nil when the text is neither a scrypt nor a bcrypt hash.
    init?(_ text: some StringProtocol) {
        if let hash = ScryptHash(text) {
            self = .scrypt(hash)
        } else if let hash = BcryptHash(text) {
            self = .bcrypt(hash)
        } else {
            return nil
        }
    }

    /// The approximate time of a verification, in microseconds.
    var cost: Int {
        switch self {
        case .scrypt(let hash): hash.cost
        case .bcrypt(let hash): hash.cost
        }
    }

    /// Whether a password has this hash. Takes tens to hundreds of milliseconds; must not run on an event loop. An empty password never
    /// matches.
    func matches(_ password: String) -> Bool {
        guard !password.isEmpty else { return false }
        return switch self {
        case .scrypt(let hash): hash.matches(password)
        case .bcrypt(let hash): hash.matches(password)
        }
    }
}

/// A scrypt hash (RFC 7914) in the PHC string format: `$scrypt$ln=15,r=8,p=1$<salt>$<hash>`, with salt and hash in base64 without padding.
/// `ln` is the base-2 logarithm of the number of rounds. To create one:
///
///     python3 -c 'import base64,getpass,hashlib,os; e=lambda b: base64.b64encode(b).decode().rstrip("="); s=os.urandom(16)
///     h=hashlib.scrypt(getpass.getpass().encode(),salt=s,n=2**15,r=8,p=1,maxmem=2**26,dklen=32);
///     print(f"$scrypt$ln=15,r=8,p=1${e(s)}${e(h)}")'
struct ScryptHash: Sendable, Hashable {
    /// Maximum memory of one verification, in bytes, so that a line of the file cannot exhaust the machine's memory.
    private static let maximumMemory = 256 << 20

    private let logarithm: Int
    private let blockSize: Int
    private let parallelism: Int
    private let salt: [UInt8]
    private let hash: [UInt8]

    /// Parses a hash.
    /// - Returns: nil unless the text has the format above with ln from 1 to 24, r and p from 1 to 64, at most 256 MiB of memory, a salt of
    ///   at least 8 bytes and a hash of 16 to 64 bytes.
    init?(_ text: some StringProtocol) {
        let parts = text.split(separator: "$", omittingEmptySubsequences: false)
        guard parts.count == 5, parts[0].isEmpty, parts[1] == "scrypt" else { return nil }
        var numbers: [Substring: Int] = [:]
        for parameter in String(parts[2]).split(separator: ",", omittingEmptySubsequences: false) {
            let pair = parameter.split(separator: "=", omittingEmptySubsequences: false)
            guard pair.count == 2, let number = Int(pair[1]), numbers.updateValue(number, forKey: pair[0]) == nil else { return nil }
        }
        guard numbers.count == 3, let logarithm = numbers["ln"], let blockSize = numbers["r"], let parallelism = numbers["p"],
            (1...24).contains(logarithm), (1...64).contains(blockSize), (1...64).contains(parallelism),
            128 * (blockSize << logarithm) * parallelism <= Self.maximumMemory,
            let salt = Self.decode(parts[3]), let hash = Self.decode(parts[4]), salt.count >= 8, (16...64).contains(hash.count)
        else { return nil }
        self.logarithm = logarithm
        self.blockSize = blockSize
        self.parallelism = parallelism
        self.salt = salt
        self.hash = hash
    }

    /// The approximate time of a verification in microseconds; see `PasswordHash.cost`. The memory limit bounds it to 2^21 blocks of 128
    /// bytes.
    var cost: Int { (blockSize << logarithm) * parallelism * 2 / 5 }

    func matches(_ password: String) -> Bool {
        let key = try? KDF.Scrypt.deriveKey(
            from: Array(password.utf8), salt: salt, outputByteCount: hash.count, rounds: 1 << logarithm, blockSize: blockSize,
            parallelism: parallelism)
        guard let key else { return false }
        // Compares in constant time.
        return key == SymmetricKey(data: hash)
    }

    private static func decode(_ text: some StringProtocol) -> [UInt8]? {
        let padding = String(repeating: "=", count: (4 - text.utf8.count % 4) % 4)
        return Data(base64Encoded: text + padding).map { Array($0) }
    }
}
