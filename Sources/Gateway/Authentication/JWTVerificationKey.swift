import Contract
import JSONCodec
import JWTKit

/// A key with its only algorithm. The header of a token never decides how a key is used (RFC 8725, 3.1), so `none` and a public key used as
/// an HMAC secret are rejected.
struct JWTVerificationKey: Sendable {
    private enum Material: Sendable {
        case hmac(HMACKey)
        case rsa(Insecure.RSA.PublicKey)
        case p256(ES256PublicKey)
        case ed25519(EdDSA.PublicKey)
    }

    /// The key's `kid` in a JWKS; nil when absent.
    let identifier: String?
    private let material: Material

    /// Minimum length of an HMAC secret in bytes: the length of the hash (RFC 7518, 3.2).
    static let minimumSecretLength = 32

    /// The algorithm's name in a token's `alg`.
    var algorithm: String {
        switch material {
        case .hmac: "HS256"
        case .rsa: "RS256"
        case .p256: "ES256"
        case .ed25519: "EdDSA"
        }
    }

    /// Verifies the signature and returns the claims. The caller must validate the claims.
    /// - Throws: JWTKit's error when the token is malformed or the signature does not match.
    func verify(_ token: String) async throws -> JWTClaims {
        let keys = JWTKeyCollection()
        switch material {
        case .hmac(let key): await keys.add(hmac: key, digestAlgorithm: .sha256)
        case .rsa(let key): await keys.add(rsa: key, digestAlgorithm: .sha256)
        case .p256(let key): await keys.add(ecdsa: key)
        case .ed25519(let key): await keys.add(eddsa: key)
        }
        return try await keys.verify(token, as: JWTClaims.self)
    }

    /// Parses a key file: PEM or an HMAC secret.
    /// - Throws: `invalidJWTKey` when it is neither.
    init(file text: String, setting: String) throws(AuthenticationError) {
        identifier = nil
        guard text.contains("-----BEGIN ") else {
            let secret = text.hasSuffix("\r\n") ? text.dropLast(1) : text.hasSuffix("\n") ? text.dropLast(1) : Substring(text)
            guard secret.utf8.count >= Self.minimumSecretLength else {
                throw AuthenticationError(
                    .invalidJWTKey, "\(setting) must be PEM or a secret for HS256 of at least \(Self.minimumSecretLength) bytes")
            }
            material = .hmac(HMACKey(from: Array(secret.utf8)))
            return
        }
        guard !text.contains("PRIVATE KEY-----") else {
            throw AuthenticationError(.invalidJWTKey, "\(setting) contains a private key; use the public key")
        }
        if text.contains("-----BEGIN CERTIFICATE-----") {
            if let key = try? Insecure.RSA.PublicKey(certificatePEM: text) {
                material = .rsa(key)
            } else if let key = try? ES256PublicKey(certificate: text) {
                material = .p256(key)
            } else {
                throw AuthenticationError(.invalidJWTKey, "\(setting): the certificate's key must be RSA or P-256")
            }
        } else if let key = try? Insecure.RSA.PublicKey(pem: text) {
            material = .rsa(key)
        } else if let key = try? ES256PublicKey(pem: text) {
            material = .p256(key)
        } else if let key = try? EdDSA.PublicKey(pem: text) {
            material = .ed25519(key)
        } else {
            throw AuthenticationError(
                .invalidJWTKey, "\(setting): the PEM must be a public key of RSA (at least 2048 bits), P-256 or Ed25519")
        }
    }

    /// Parses a key of a JWKS (RFC 7517; RFC 7518, 6). Returns nil for a key that is not for signatures of the supported algorithms.
    init?(_ json: JSON) {
        guard json["use"]?.string ?? "sig" == "sig" else { return nil }
        let parameter = { (name: String) in json[name]?.string ?? "" }
        let material: Material?
        switch (parameter("kty"), json["crv"]?.string) {
        case ("oct", _):
            let secret = parameter("k").base64URLDecoded ?? []
            material = secret.count >= Self.minimumSecretLength ? .hmac(HMACKey(from: secret)) : nil
        case ("RSA", _): material = (try? Insecure.RSA.PublicKey(modulus: parameter("n"), exponent: parameter("e"))).map(Material.rsa)
        case ("EC", "P-256"): material = (try? ES256PublicKey(parameters: (x: parameter("x"), y: parameter("y")))).map(Material.p256)
        case ("OKP", "Ed25519"): material = (try? EdDSA.PublicKey(x: parameter("x"), curve: .ed25519)).map(Material.ed25519)
        default: material = nil
        }
        guard let material else { return nil }
        self.material = material
        identifier = json["kid"]?.string
        guard json["alg"]?.string ?? algorithm == algorithm else { return nil }
    }

    /// Parses a JWKS and skips unsupported keys.
    /// - Throws: `invalidJWTKey` when it contains no supported key.
    static func set(parsing text: String, setting: String) throws(AuthenticationError) -> [JWTVerificationKey] {
        guard let keys = (try? JSON(parsing: text))?["keys"]?.array else {
            throw AuthenticationError(.invalidJWTKey, "\(setting) must be a JSON Web Key Set: {\"keys\":[…]}")
        }
        let usable = keys.compactMap { JWTVerificationKey($0) }
        guard !usable.isEmpty else {
            throw AuthenticationError(.invalidJWTKey, "\(setting) contains no key for HS256, RS256, ES256 or EdDSA")
        }
        return usable
    }
}
