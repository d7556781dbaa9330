import Foundation
import Logging
import TestSupport
import Testing

@testable import Gateway

/// Calls `body` with the path of a temporary file that contains `text`.
@discardableResult
func withFile<Value>(_ text: String, _ body: (String) async throws -> Value) async throws -> Value {
    let folder = try TemporaryFolder("authentication")
    defer { folder.remove() }
    let path = folder.file("setting")
    try Data(text.utf8).write(to: URL(filePath: path))
    return try await body(path)
}

private let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

/// An authenticator with the settings that `fill` sets.
func authenticator(_ fill: (inout AuthenticationSettings) -> Void) throws -> Authenticator {
    var settings = AuthenticationSettings()
    fill(&settings)
    return try Authenticator(settings: settings, logger: logger)
}

@Suite struct AuthenticationSettingsTests {
    @Test(arguments: [
        ("127.0.0.1", true), ("127.1.2.3", true), ("::1", true), ("[::1]", true), ("localhost", true), ("0.0.0.0", false), ("::", false),
        ("10.0.0.1", false), ("127.0.0.1.example.org", false), ("127.evil", false), ("", false),
    ])
    func `loopback addresses are recognized`(host: String, expected: Bool) {
        #expect(AuthenticationSettings.isLoopback(host) == expected)
    }

    @Test func `an error without an authentication method names the settings`() {
        #expect { try authenticator { _ in } } throws: { error in
            guard let error = error as? AuthenticationError else { return false }
            return error.code == .noMethod && error.message.contains("SLUICE_API_KEYS") && error.message.contains("SLUICE_AUTH=none")
        }
    }

    @Test func `SLUICE_AUTH none requires loopback unless allowed anywhere`() async throws {
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

    @Test(arguments: ["nocolon", "a:", ":key", "a:same-key-of-16-bytes,b:same-key-of-16-bytes", " , "])
    func `errors for invalid keys do not contain the keys`(text: String) {
        #expect { try authenticator { $0.apiKeys = text } } throws: { error in
            (error as? AuthenticationError)?.code == .invalidKeys && !"\(error)".contains("same") && !"\(error)".contains("nocolon")
        }
    }

    @Test func `the error for a short key names the tenant but not the key`() {
        #expect { try authenticator { $0.apiKeys = "acme:0123456789abcdef,globex:0123456789abcde" } } throws: { error in
            (error as? AuthenticationError)?.code == .invalidKeys && "\(error)".contains("SLUICE_API_KEYS")
                && "\(error)".contains("globex") && !"\(error)".contains("0123456789abcde")
        }
    }

    @Test func `the error for a missing file names the file`() {
        #expect { try authenticator { $0.jwtKeyFile = "/nowhere/key.pem" } } throws: { error in
            "\(error)" == "SLUICE_JWT_KEY_FILE: /nowhere/key.pem cannot be read"
        }
    }
}

@Suite struct APIKeyTests {
    @Test func `a key identifies its tenant`() async throws {
        let keys = try authenticator { $0.apiKeys = "tenant-a:key-number-one-16, tenant-b:two:with:colons:16\ntenant-a:key-number-three" }
        let table: [(String, String?)] = [
            ("key-number-one-16", "tenant-a"), ("key-number-three", "tenant-a"), ("two:with:colons:16", "tenant-b"), ("two", nil),
            ("", nil),
            ("KEY-NUMBER-ONE-16", nil), ("key-number-one-16 ", nil),
        ]
        for (key, tenant) in table {
            #expect(await keys.authenticate(.apiKey(key))?.name == tenant, "\(key)")
            #expect(await keys.authenticate(.bearer(key))?.name == tenant, "\(key)")
        }
        #expect(await keys.authenticate(.jwt("key-number-one-16")) == nil)
        #expect(await keys.authenticate(.account("tenant-a", password: "key-number-one-16")) == nil)
    }

    @Test func `keys are read from a file`() async throws {
        try await withFile("# ours\na:key-number-one-16\n\nb:key-number-two-16,c:key-number-three\n") { path in
            let keys = try authenticator { $0.apiKeysFile = path }
            #expect(await keys.authenticate(.apiKey("key-number-three"))?.name == "c")
            #expect(await keys.authenticate(.apiKey("ours")) == nil)
        }
    }

    @Test func `the admin key does not authenticate a tenant`() async throws {
        let keys = try authenticator {
            $0.apiKeys = "a:key-number-one-16"
            $0.adminKey = "0123456789abcdef"
        }
        #expect(keys.operatorRole(key: "0123456789abcdef") == .admin)
        #expect(keys.operatorRole(key: "key-number-one-16") == nil)
        #expect(await keys.authenticate(.bearer("0123456789abcdef")) == nil)
        #expect(try authenticator { $0.none = true }.operatorRole(key: "") == nil)
        #expect(throws: AuthenticationError.self) { try authenticator { $0.adminKey = "short" } }
    }
}

@Suite struct AccountTests {
    /// Created by Python's hashlib.scrypt: password "swordfish", N = 2^10.
    private static let hash = "$scrypt$ln=10,r=8,p=1$MDEyMzQ1Njc4OWFiY2RlZg$EnnshMQJBO5njFXhxb7lqJrTfwJZ+ZnnIatUXnc/UzQ"

    @Test func `an account identifies its tenant`() async throws {
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

    /// Test vectors of Openwall's crypt_blowfish 1.3 (wrapper.c).
    @Test(arguments: [
        ("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"),
        ("$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"),
        ("$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"),
        ("$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK", "U*U*"),
        ("$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a", "U*U*U"),
        (
            "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui",
            "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789chars after 72 are ignored"
        ),
        // The salt's last character has four unused bits.
        ("$2b$05$CCCCCCCCCCCCCCCCCCCCC/E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"),
    ])
    func `bcrypt hashes of other implementations are verified`(hash: String, password: String) async throws {
        try await withFile("acme:ann:\(hash)\n") { path in
            let accounts = try authenticator { $0.accountsFile = path }
            #expect(await accounts.authenticate(.account("ann", password: password))?.name == "acme")
            for wrong in ["", "U*u", "\0", "\(password)\0", "\(password.dropLast(40))x"] {
                #expect(await accounts.authenticate(.account("ann", password: wrong)) == nil, "\(wrong)")
            }
        }
    }

    @Test(arguments: [
        "", "$scrypt$ln=10,r=8,p=1$c2FsdHNhbHQ", "$scrypt$ln=10,r=8,p=1$$", "$scrypt$ln=40,r=8,p=1$c2FsdHNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg",
        "$scrypt$ln=20,r=64,p=64$c2FsdHNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg", "$scrypt$ln=10,r=8$c2FsdHNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg",
        "$2b$12$abcdefghijklmnopqrstuv", "$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "$2b$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "$2b$ 5$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe=", "$1$salt$Nd8BfPNXjz0zWEYGwSPA0.",
        "$scrypt$ln=10,r=8,p=1,x=1$c2FsdHNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg", "plain",
        "$scrypt$ln=10,r=8,p=1,p=1$c2FsdHNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg",
    ])
    func `the error for an invalid hash names its line`(hash: String) async throws {
        #expect(PasswordHash(hash) == nil)
        try await withFile("\nann:\(hash)\n") { path in
            #expect { try authenticator { $0.accountsFile = path } } throws: { error in
                (error as? AuthenticationError)?.code == .invalidAccounts && "\(error)".contains("line 2")
            }
        }
    }
}
