/// The settings of a gateway's authentication. At least one method, or `none`, must be set.
package struct AuthenticationSettings: Sendable {
    /// `SLUICE_API_KEYS`: `tenant:key,tenant:key…`, separated by commas or line breaks. A tenant may have several keys of at least 16
    /// bytes.
    package var apiKeys: String?
    /// `SLUICE_API_KEYS_FILE`: path of a file in the same format. Lines that begin with `#` are comments.
    package var apiKeysFile: String?
    /// `SLUICE_JWT_KEY_FILE`: path of a public key or certificate in PEM (RSA for RS256, P-256 for ES256, Ed25519 for EdDSA), or of a
    /// secret for HS256 of at least 32 bytes, without a trailing line break.
    package var jwtKeyFile: String?
    /// `SLUICE_JWT_JWKS_FILE`: path of a JSON Web Key Set (RFC 7517) with keys for these four algorithms.
    package var jwtJWKSFile: String?
    /// `SLUICE_JWT_ISSUER`: the required `iss` claim; nil to ignore the claim.
    package var jwtIssuer: String?
    /// `SLUICE_JWT_AUDIENCE`: the audience that `aud` must contain; nil to reject tokens with an `aud` claim, because they were issued for
    /// another service (RFC 7519, 4.1.3).
    package var jwtAudience: String?
    /// `SLUICE_JWT_REQUIRE_EXP` (on): whether tokens without `exp` are rejected. Such tokens would be valid without limit.
    package var jwtRequiresExpiration = true
    /// `SLUICE_ACCOUNTS_FILE`: path of a file with lines `tenant:account:hash` or `account:hash` (the account is its own tenant) and
    /// comments after `#`. The hash is bcrypt, `$2b$12$…` (`htpasswd -nB`), or scrypt, `$scrypt$ln=15,r=8,p=1$<salt>$<hash>` (see
    /// `ScryptHash`).
    package var accountsFile: String?
    /// `SLUICE_AUTH=none`: whether authentication is disabled. Any credential, or none, is accepted.
    package var none = false
    /// `SLUICE_AUTH_NONE_ANYWHERE=1`: whether `none` is also allowed on addresses other than loopback.
    package var noneAnywhere = false
    /// `SLUICE_ADMIN_KEY`: the key for full access to the dashboard; at least 16 bytes.
    package var adminKey: String?
    /// `SLUICE_VIEWER_KEY`: the key for read-only access to the dashboard; at least 16 bytes.
    package var viewerKey: String?
    /// Whether the gateway listens on loopback addresses only.
    package var listensOnLoopback = true

    package init() {}

    /// Whether a listening address is reachable only from its own machine: `localhost`, 127.0.0.0/8 or `::1`.
    package static func isLoopback(_ host: String) -> Bool {
        let name = host.hasPrefix("[") && host.hasSuffix("]") ? String(host.dropFirst().dropLast()) : host
        if name == "localhost" || name == "::1" { return true }
        let parts = name.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts[0] == "127" && parts.allSatisfy { UInt8($0) != nil }
    }
}

/// An error in the authentication settings. The message names settings, files and lines, never a secret.
package struct AuthenticationError: Error, Sendable, Hashable, CustomStringConvertible {
    package enum Code: Sendable, Hashable {
        case noMethod
        case noneNotAllowed
        case unreadableFile
        case invalidKeys
        case invalidAccounts
        case invalidJWTKey
        case invalidAdminKey
    }

    package let code: Code
    package let message: String

    package init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    package var description: String { message }
}
