import Crypto
import CryptoExtras
import Foundation
import Logging
import TestSupport
import Testing

@testable import Gateway

/// A file that lives as long as its test.
@discardableResult
private func withFile<Value>(_ text: String, _ body: (String) async throws -> Value) async throws -> Value {
    let folder = try TemporaryFolder("authentication")
    defer { folder.remove() }
    let path = folder.file("setting")
    try Data(text.utf8).write(to: URL(filePath: path))
    return try await body(path)
}

private let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

private func authenticator(_ fill: (inout AuthenticationSettings) -> Void) throws -> Authenticator {
    var settings = AuthenticationSettings()
    fill(&settings)
    return try Authenticator(settings: settings, logger: logger)
}

@Suite struct AuthenticationSettingsTests {
    @Test(arguments: [
        ("127.0.0.1", true), ("127.1.2.3", true), ("::1", true), ("[::1]", true), ("localhost", true), ("0.0.0.0", false), ("::", false),
        ("10.0.0.1", false), ("127.0.0.1.example.org", false), ("127.evil", false), ("", false),
    ])
    func loopbackIsWhatOnlyThisMachineReaches(host: String, expected: Bool) {
        #expect(AuthenticationSettings.isLoopback(host) == expected)
    }

    @Test func withoutAMethodItRefusesAndSaysWhatToSet() {
        #expect { try authenticator { _ in } } throws: { error in
            guard let error = error as? AuthenticationError else { return false }
            return error.code == .noMethod && error.message.contains("SLUICE_API_KEYS") && error.message.contains("SLUICE_AUTH=none")
        }
    }

    @Test func noneIsForLoopbackUnlessSaidOtherwise() async throws {
        let open = try authenticator { $0.none = true }
        #expect(await open.authenticate(.bearer("whatever")) == .anonymous)
        #expect(throws: AuthenticationError.self) {
            try authenticator {
                $0.none = true
                $0.listensOnLoopback = false
            }
        }
        let anywhere = try authenticator {
            $0.none = true
            $0.listensOnLoopback = false
            $0.noneAnywhere = true
        }
        #expect(await anywhere.authenticate(.apiKey("")) == .anonymous)
    }

    @Test(arguments: ["nocolon", "a:", ":key", "a:same,b:same", " , "])
    func faultyKeysAreRefusedWithoutTellingThem(text: String) {
        #expect { try authenticator { $0.apiKeys = text } } throws: { error in
            (error as? AuthenticationError)?.code == .invalidKeys && !"\(error)".contains("same") && !"\(error)".contains("nocolon")
        }
    }

    @Test func aFileThatIsNotThereIsNamed() {
        #expect { try authenticator { $0.jwtKeyFile = "/nowhere/key.pem" } } throws: { error in
            "\(error)" == "SLUICE_JWT_KEY_FILE: /nowhere/key.pem cannot be read"
        }
    }
}

@Suite struct APIKeyTests {
    @Test func aKeySaysItsTenant() async throws {
        let keys = try authenticator { $0.apiKeys = "tenant-a:one, tenant-b:two:with:colons\ntenant-a:three" }
        let table: [(String, String?)] = [
            ("one", "tenant-a"), ("three", "tenant-a"), ("two:with:colons", "tenant-b"), ("two", nil), ("", nil), ("ONE", nil),
            ("one ", nil),
        ]
        for (key, tenant) in table {
            #expect(await keys.authenticate(.apiKey(key))?.name == tenant, "\(key)")
            #expect(await keys.authenticate(.bearer(key))?.name == tenant, "\(key)")
        }
        #expect(await keys.authenticate(.jwt("one")) == nil)
        #expect(await keys.authenticate(.account("tenant-a", password: "one")) == nil)
    }

    @Test func keysFromAFile() async throws {
        try await withFile("# ours\na:one\n\nb:two,c:three\n") { path in
            let keys = try authenticator { $0.apiKeysFile = path }
            #expect(await keys.authenticate(.apiKey("three"))?.name == "c")
            #expect(await keys.authenticate(.apiKey("ours")) == nil)
        }
    }

    @Test func theAdminKeyIsNoTenantsKey() async throws {
        let keys = try authenticator {
            $0.apiKeys = "a:one"
            $0.adminKey = "0123456789abcdef"
        }
        #expect(keys.operatorRole(key: "0123456789abcdef") == .admin)
        #expect(keys.operatorRole(key: "one") == nil)
        #expect(await keys.authenticate(.bearer("0123456789abcdef")) == nil)
        #expect(try authenticator { $0.none = true }.operatorRole(key: "") == nil)
        #expect(throws: AuthenticationError.self) { try authenticator { $0.adminKey = "short" } }
    }
}

@Suite struct AccountTests {
    /// Made by Python's hashlib.scrypt: password "swordfish", N = 2^10.
    private static let hash = "$scrypt$ln=10,r=8,p=1$MDEyMzQ1Njc4OWFiY2RlZg$EnnshMQJBO5njFXhxb7lqJrTfwJZ+ZnnIatUXnc/UzQ"

    @Test func anAccountSaysItsTenant() async throws {
        try await withFile("# accounts\nacme:ann:\(Self.hash)\nbob:\(Self.hash)\n") { path in
            let accounts = try authenticator { $0.accountsFile = path }
            let table: [(String, String, String?)] = [
                ("ann", "swordfish", "acme"), ("bob", "swordfish", "bob"), ("ann", "Swordfish", nil), ("ann", "", nil),
                ("eve", "swordfish", nil),
                ("", "", nil), ("acme", "swordfish", nil),
            ]
            for (account, password, tenant) in table {
                #expect(await accounts.authenticate(.account(account, password: password))?.name == tenant, "\(account) \(password)")
            }
            #expect(await accounts.authenticate(.apiKey("swordfish")) == nil)
        }
    }

    @Test(arguments: [
        "", "$scrypt$ln=10,r=8,p=1$c2FsdHNhbHQ", "$scrypt$ln=10,r=8,p=1$$", "$scrypt$ln=40,r=8,p=1$c2FsdHNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg",
        "$scrypt$ln=20,r=64,p=64$c2FsdHNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg", "$scrypt$ln=10,r=8$c2FsdHNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg",
        "$2b$12$abcdefghijklmnopqrstuv", "$scrypt$ln=10,r=8,p=1,x=1$c2FsdHNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg", "plain",
        "$scrypt$ln=10,r=8,p=1,p=1$c2FsdHNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg",
    ])
    func whatIsNoHashIsRefusedWithItsLine(hash: String) async throws {
        #expect(PasswordHash(hash) == nil)
        try await withFile("\nann:\(hash)\n") { path in
            #expect { try authenticator { $0.accountsFile = path } } throws: { error in
                (error as? AuthenticationError)?.code == .invalidAccounts && "\(error)".contains("line 2")
            }
        }
    }
}

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

    @Test func eachAlgorithmWithItsKey() async throws {
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
                // Each other's tokens, and its own with a byte changed, are nobody's.
                for (other, (_, foreign)) in table.enumerated() where other != index {
                    #expect(await tokens.authenticate(.jwt(foreign)) == nil, "\(other) with the key of \(index)")
                }
                let parts = token.split(separator: ".")
                let forged = "\(parts[0]).\(Self.base64URL(#"{"sub":"eve"}"#.utf8)).\(parts[2])"
                #expect(await tokens.authenticate(.jwt(forged)) == nil)
            }
        }
    }

    @Test func noneAndKeyConfusionAreRefused() async throws {
        let pem = Self.elliptic.publicKey.pemRepresentation
        let rsaPEM = try Self.rsa.get().publicKey.pemRepresentation
        let forged = [
            Self.token(#"{"alg":"none"}"#) { _ in Data() }, Self.token(#"{"alg":"None"}"#) { _ in Data() },
            Self.token(#"{}"#) { _ in Data() },
            Self.token(#"{"alg":""}"#) { _ in Data() }, Self.token(#"{"alg":"ES256"}"#) { _ in Data() },
            Self.token(#"{"alg":"ES256"}"#) { _ in Data(count: 64) },
            // The public key as an HMAC secret.
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

    @Test func claimsDecide() async throws {
        try await withFile(Self.secret) { path in
            let plain = try authenticator { $0.jwtKeyFile = path }
            let bound = try authenticator {
                $0.jwtKeyFile = path
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

    @Test func aKeySetChoosesByAlgorithmAndIdentifier() async throws {
        let x963 = Self.elliptic.publicKey.x963Representation
        let set = """
            {"keys":[
              {"kty":"EC","crv":"P-256","kid":"e","x":"\(Self.base64URL(x963[1..<33]))","y":"\(Self.base64URL(x963[33..<65]))"},
              {"kty":"OKP","crv":"Ed25519","kid":"d","alg":"EdDSA","x":"\(Self.base64URL(Self.edwards.publicKey.rawRepresentation))"},
              {"kty":"oct","kid":"h","k":"\(Self.base64URL(Self.secret.utf8))"},
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
                (Self.token(#"{"alg":"HS256","kid":"enc"}"#) { Self.hmac($0, key: Self.secret + "!") }, nil),
                (Self.token(#"{"alg":"HS256"}"#) { Self.hmac($0, key: Self.base64URL(x963)) }, nil),
            ]
            for (index, (token, tenant)) in table.enumerated() {
                #expect(await tokens.authenticate(.jwt(token))?.name == tenant, "\(index)")
            }
        }
    }

    @Test(arguments: ["short secret", "-----BEGIN PUBLIC KEY-----\nrubbish\n-----END PUBLIC KEY-----", ""])
    func keysOfNoUseAreRefused(text: String) async throws {
        try await withFile(text) { path in
            #expect { try authenticator { $0.jwtKeyFile = path } } throws: { ($0 as? AuthenticationError)?.code == .invalidJWTKey }
            #expect { try authenticator { $0.jwtJWKSFile = path } } throws: { ($0 as? AuthenticationError)?.code == .invalidJWTKey }
        }
        try await withFile(Self.elliptic.pemRepresentation) { path in
            #expect { try authenticator { $0.jwtKeyFile = path } } throws: { "\($0)".contains("private key") }
        }
    }
}
