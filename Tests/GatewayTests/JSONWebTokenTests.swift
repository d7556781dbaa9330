import Crypto
import CryptoExtras
import Foundation
import Logging
import TestSupport
import Testing

@testable import Gateway

@Suite struct JSONWebTokenTests {
    private static let secret = "a secret of at least thirty-two bytes"
    private static let elliptic = P256.Signing.PrivateKey()
    private static let edwards = Curve25519.Signing.PrivateKey()
    private static let rsa = Result { try _RSA.Signing.PrivateKey(keySize: .bits2048) }

    private static func base64URL(_ bytes: some Sequence<UInt8>) -> String {
        String(Data(bytes).base64EncodedString().compactMap { $0 == "+" ? "-" : $0 == "/" ? "_" : $0 == "=" ? nil : $0 })
    }

    private static func token(
        _ header: String, _ claims: String = #"{"sub":"sue","exp":4102444800}"#, sign: (Data) throws -> Data
    ) rethrows -> String {
        let signed = base64URL(header.utf8) + "." + base64URL(claims.utf8)
        return try signed + "." + base64URL(sign(Data(signed.utf8)))
    }

    private static func hmac(_ data: Data, key: String = secret) -> Data {
        Data(HMAC<SHA256>.authenticationCode(for: data, using: SymmetricKey(data: Data(key.utf8))))
    }

    private static func hs256(_ claims: String) -> String { token(#"{"alg":"HS256","typ":"JWT"}"#, claims) { hmac($0) } }

    @Test func `each algorithm with its key`() async throws {
        let rsa = try Self.rsa.get()
        let table: [(String, String)] = [
            (Self.secret + "\n", Self.token(#"{"alg":"HS256"}"#) { Self.hmac($0) }),
            (
                Self.elliptic.publicKey.pemRepresentation,
                try Self.token(#"{"alg":"ES256"}"#) { try Self.elliptic.signature(for: $0).rawRepresentation }
            ),
            (Self.edwards.publicKey.pemRepresentation, try Self.token(#"{"alg":"EdDSA"}"#) { try Self.edwards.signature(for: $0) }),
            (
                rsa.publicKey.pemRepresentation,
                try Self.token(#"{"alg":"RS256"}"#) { try rsa.signature(for: $0, padding: .insecurePKCS1v1_5).rawRepresentation }
            ),
        ]
        for (index, (key, token)) in table.enumerated() {
            try await withFile(key) { path in
                let tokens = try authenticator { $0.jwtKeyFile = path }
                #expect(await tokens.authenticate(.jwt(token))?.name == "sue", "\(index)")
                #expect(await tokens.authenticate(.bearer(token))?.name == "sue", "\(index)")
                #expect(await tokens.authenticate(.apiKey(token)) == nil)
                // Tokens of other keys, and its own with a changed byte, are rejected.
                for (other, (_, foreign)) in table.enumerated() where other != index {
                    #expect(await tokens.authenticate(.jwt(foreign)) == nil, "\(other) with the key of \(index)")
                }
                let parts = token.split(separator: ".")
                let forged = "\(parts[0]).\(Self.base64URL(#"{"sub":"eve"}"#.utf8)).\(parts[2])"
                #expect(await tokens.authenticate(.jwt(forged)) == nil)
            }
        }
    }

    @Test func `none and key confusion are rejected`() async throws {
        let pem = Self.elliptic.publicKey.pemRepresentation
        let rsaPEM = try Self.rsa.get().publicKey.pemRepresentation
        let forged = [
            Self.token(#"{"alg":"none"}"#) { _ in Data() }, Self.token(#"{"alg":"None"}"#) { _ in Data() },
            Self.token(#"{}"#) { _ in Data() },
            Self.token(#"{"alg":""}"#) { _ in Data() }, Self.token(#"{"alg":"ES256"}"#) { _ in Data() },
            Self.token(#"{"alg":"ES256"}"#) { _ in Data(count: 64) },
            // The public key used as an HMAC secret.
            Self.token(#"{"alg":"HS256"}"#) { Self.hmac($0, key: pem) }, Self.token(#"{"alg":"HS256"}"#) { Self.hmac($0, key: rsaPEM) },
            Self.token(#"{"alg":"RS256"}"#) { Self.hmac($0, key: rsaPEM) }, Self.token(#"{"alg":"ES256"}"#) { Self.hmac($0, key: pem) },
            try Self.token(#"{"alg":"ES256","crit":["exp"]}"#) { try Self.elliptic.signature(for: $0).rawRepresentation },
            "", ".", "..", "eyJ.e.e", "a.b.c.d",
        ]
        for pem in [pem, rsaPEM] {
            try await withFile(pem) { path in
                let tokens = try authenticator { $0.jwtKeyFile = path }
                for token in forged { #expect(await tokens.authenticate(.jwt(token)) == nil, "\(token)") }
            }
        }
    }

    @Test func `claims are validated`() async throws {
        try await withFile(Self.secret) { path in
            let plain = try authenticator {
                $0.jwtKeyFile = path
                $0.jwtRequiresExpiration = false
            }
            let bound = try authenticator {
                $0.jwtKeyFile = path
                $0.jwtRequiresExpiration = false
                $0.jwtIssuer = "https://issuer"
                $0.jwtAudience = "sluice"
            }
            let table: [(String, plain: String?, bound: String?)] = [
                (#"{"sub":"sue"}"#, "sue", nil),
                (#"{"sub":"sue","tenant":"acme"}"#, "acme", nil),
                (#"{"tenant":"acme"}"#, "acme", nil),
                (#"{"exp":4102444800}"#, nil, nil),
                (#"{"sub":""}"#, nil, nil),
                (#"{"sub":7}"#, nil, nil),
                (#"{"sub":"sue","exp":1000}"#, nil, nil),
                (#"{"sub":"sue","exp":"never"}"#, nil, nil),
                (#"{"sub":"sue","nbf":4102444800}"#, nil, nil),
                (#"{"sub":"sue","nbf":1000,"exp":4102444800.5}"#, "sue", nil),
                (#"{"sub":"sue","aud":"other"}"#, nil, nil),
                (#"{"sub":"sue","iss":"https://issuer","aud":"sluice"}"#, nil, "sue"),
                (#"{"sub":"sue","iss":"https://issuer","aud":["x","sluice"]}"#, nil, "sue"),
                (#"{"sub":"sue","iss":"https://issuer","aud":[]}"#, nil, nil),
                (#"{"sub":"sue","iss":"https://other","aud":"sluice"}"#, nil, nil),
                (#"{"sub":"sue","iss":"https://issuer"}"#, "sue", nil),
                (#"["sue"]"#, nil, nil),
            ]
            for (claims, expectedPlain, expectedBound) in table {
                #expect(await plain.authenticate(.jwt(Self.hs256(claims)))?.name == expectedPlain, "\(claims)")
                #expect(await bound.authenticate(.jwt(Self.hs256(claims)))?.name == expectedBound, "\(claims)")
            }
        }
    }

    @Test func `a token without exp is rejected unless allowed`() async throws {
        try await withFile(Self.secret) { path in
            let strict = try authenticator { $0.jwtKeyFile = path }
            #expect(await strict.authenticate(.jwt(Self.hs256(#"{"sub":"sue"}"#))) == nil)
            #expect(await strict.authenticate(.jwt(Self.hs256(#"{"sub":"sue","exp":null}"#))) == nil)
            #expect(await strict.authenticate(.jwt(Self.hs256(#"{"sub":"sue","exp":4102444800}"#)))?.name == "sue")
            #expect(await strict.authenticate(.jwt(Self.hs256(#"{"sub":"sue","exp":1e400}"#))) == nil)
        }
    }

    @Test func `small clock differences are tolerated`() async throws {
        let now = Date().timeIntervalSince1970
        try await withFile(Self.secret) { path in
            let tokens = try authenticator {
                $0.jwtKeyFile = path
                $0.jwtRequiresExpiration = false
            }
            for (claim, offset, tenant) in [
                ("exp", -20.0, "sue"), ("exp", -60, nil), ("nbf", 15, "sue"), ("nbf", 3_600, nil),
            ] as [(String, Double, String?)] {
                let claims = "{\"sub\":\"sue\",\"\(claim)\":\(Int(now + offset))}"
                #expect(await tokens.authenticate(.jwt(Self.hs256(claims)))?.name == tenant, "\(claim) in \(offset) s")
            }
        }
    }

    @Test func `a key set selects by algorithm and key id`() async throws {
        let x963 = Self.elliptic.publicKey.x963Representation
        let set = """
            {"keys":[
              {"kty":"EC","crv":"P-256","kid":"e","x":"\(Self.base64URL(x963[1..<33]))","y":"\(Self.base64URL(x963[33..<65]))"},
              {"kty":"OKP","crv":"Ed25519","kid":"d","alg":"EdDSA","x":"\(Self.base64URL(Self.edwards.publicKey.rawRepresentation))"},
              {"kty":"oct","kid":"h","k":"\(Self.base64URL(Self.secret.utf8))"},
              {"kty":"oct","kid":"h2","k":"\(Self.base64URL((Self.secret + "2").utf8))"},
              {"kty":"oct","kid":"weak","k":"\(Self.base64URL("short".utf8))"},
              {"kty":"oct","kid":"enc","use":"enc","k":"\(Self.base64URL((Self.secret + "!").utf8))"},
              {"kty":"EC","crv":"P-521","kid":"unknown"}]}
            """
        try await withFile(set) { path in
            let tokens = try authenticator { $0.jwtJWKSFile = path }
            let elliptic = { (header: String) in try Self.token(header) { try Self.elliptic.signature(for: $0).rawRepresentation } }
            let table: [(String, String?)] = [
                (try elliptic(#"{"alg":"ES256","kid":"e"}"#), "sue"),
                (try elliptic(#"{"alg":"ES256"}"#), "sue"),
                (try elliptic(#"{"alg":"ES256","kid":"d"}"#), nil),
                (try elliptic(#"{"alg":"EdDSA","kid":"e"}"#), nil),
                (try Self.token(#"{"alg":"EdDSA","kid":"d"}"#) { try Self.edwards.signature(for: $0) }, "sue"),
                (Self.token(#"{"alg":"HS256","kid":"h"}"#) { Self.hmac($0) }, "sue"),
                // With two keys of one kind, the key id selects one; without an id both are tried.
                (Self.token(#"{"alg":"HS256","kid":"h2"}"#) { Self.hmac($0, key: Self.secret + "2") }, "sue"),
                (Self.token(#"{"alg":"HS256","kid":"h"}"#) { Self.hmac($0, key: Self.secret + "2") }, nil),
                (Self.token(#"{"alg":"HS256"}"#) { Self.hmac($0, key: Self.secret + "2") }, "sue"),
                (Self.token(#"{"alg":"HS256","kid":"nobody's"}"#) { Self.hmac($0) }, nil),
                (Self.token(#"{"alg":"HS256","kid":7}"#) { Self.hmac($0) }, nil),
                (Self.token(#"{"alg":"HS256","kid":"enc"}"#) { Self.hmac($0, key: Self.secret + "!") }, nil),
                (Self.token(#"{"alg":"HS256"}"#) { Self.hmac($0, key: Self.base64URL(x963)) }, nil),
            ]
            for (index, (token, tenant)) in table.enumerated() {
                #expect(await tokens.authenticate(.jwt(token))?.name == tenant, "\(index)")
            }
        }
    }

    @Test(arguments: ["short secret", "-----BEGIN PUBLIC KEY-----\nrubbish\n-----END PUBLIC KEY-----", ""])
    func `unsupported key files are rejected`(text: String) async throws {
        try await withFile(text) { path in
            #expect { try authenticator { $0.jwtKeyFile = path } } throws: { ($0 as? AuthenticationError)?.code == .invalidJWTKey }
            #expect { try authenticator { $0.jwtJWKSFile = path } } throws: { ($0 as? AuthenticationError)?.code == .invalidJWTKey }
        }
        try await withFile(Self.elliptic.pemRepresentation) { path in
            #expect { try authenticator { $0.jwtKeyFile = path } } throws: { "\($0)".contains("private key") }
        }
    }
}
