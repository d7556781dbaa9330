import Contract
import JSONCodec
import JWTKit

/// A key with the one algorithm that it is for. A token is verified with that algorithm or not at all: what its header claims never chooses
/// how a key is used (RFC 8725, 3.1), so neither `none` nor a public key taken as an HMAC secret gets anywhere.
struct JWTVerificationKey: Sendable {
    private enum Material: Sendable {
        case hmac(HMACKey)
        case rsa(Insecure.RSA.PublicKey)
        case p256(ES256PublicKey)
        case ed25519(EdDSA.PublicKey)
    }

    /// The `kid` of a JWKS's key.
    let identifier: String?
    private let material: Material

    /// RFC 7518, 3.2: at least as long as the hash.
    static let minimumSecretLength = 32

    var algorithm: String {
        switch material {
        case .hmac: "HS256"
        case .rsa: "RS256"
        case .p256: "ES256"
        case .ed25519: "EdDSA"
        }
    }

    /// The payload's claims, once the signature is right. Whether they hold is the caller's to decide.
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

    /// A key file: PEM or a secret.
    /// - Throws: `invalidJWTKey`.
    init(file text: String, setting: String) throws(AuthenticationError) {
        identifier = nil
        guard text.contains("-----BEGIN ") else {
            let secret = text.hasSuffix("\r\n") ? text.dropLast(1) : text.hasSuffix("\n") ? text.dropLast(1) : Substring(text)
            guard secret.utf8.count >= Self.minimumSecretLength else {
                throw AuthenticationError(
                    .invalidJWTKey, "\(setting): neither PEM nor a secret for HS256 of at least \(Self.minimumSecretLength) bytes")
            }
            material = .hmac(HMACKey(from: Array(secret.utf8)))
            return
        }
        guard !text.contains("PRIVATE KEY-----") else {
            throw AuthenticationError(.invalidJWTKey, "\(setting) holds a private key; a gateway needs only the public one")
        }
        if text.contains("-----BEGIN CERTIFICATE-----") {
            if let key = try? Insecure.RSA.PublicKey(certificatePEM: text) {
                material = .rsa(key)
            } else if let key = try? ES256PublicKey(certificate: text) {
                material = .p256(key)
            } else {
                throw AuthenticationError(.invalidJWTKey, "\(setting): the certificate's key is neither RSA nor P-256")
            }
        } else if let key = try? Insecure.RSA.PublicKey(pem: text) {
            material = .rsa(key)
        } else if let key = try? ES256PublicKey(pem: text) {
            material = .p256(key)
        } else if let key = try? EdDSA.PublicKey(pem: text) {
            material = .ed25519(key)
        } else {
            throw AuthenticationError(.invalidJWTKey, "\(setting): the PEM is no public key of RSA (2048 bits and more), P-256 or Ed25519")
        }
    }

    /// A member of a JWKS (RFC 7517, RFC 7518 section 6); nil for one that is not made for signatures of the algorithms above.
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

    /// - Throws: `invalidJWTKey` when there is no usable key in it.
    static func set(parsing text: String, setting: String) throws(AuthenticationError) -> [JWTVerificationKey] {
        guard let keys = (try? JSON(parsing: text))?["keys"]?.array else {
            throw AuthenticationError(.invalidJWTKey, "\(setting) is not a JSON web key set: {\"keys\":[…]}")
        }
        let usable = keys.compactMap { JWTVerificationKey($0) }
        guard !usable.isEmpty else {
            throw AuthenticationError(.invalidJWTKey, "\(setting) holds no key for HS256, RS256, ES256 or EdDSA")
        }
        return usable
    }
}
