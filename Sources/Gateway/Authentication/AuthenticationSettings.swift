/// Who may use a gateway. At least one method must be there, or `none`.
package struct AuthenticationSettings: Sendable {
    /// `SLUICE_API_KEYS`: `tenant:key,tenant:key…`; line breaks count as commas. A tenant may have several keys, each of at
    /// least 16 bytes.
    package var apiKeys: String?
    /// `SLUICE_API_KEYS_FILE`: the same in a file, in which lines that begin with `#` are comments.
    package var apiKeysFile: String?
    /// `SLUICE_JWT_KEY_FILE`: a public key or certificate in PEM (RSA: RS256, P-256: ES256, Ed25519: EdDSA), else a secret for HS256 of at
    /// least 32 bytes (a line break at its end is not part of it).
    package var jwtKeyFile: String?
    /// `SLUICE_JWT_JWKS_FILE`: a JSON web key set (RFC 7517) with keys of these four kinds.
    package var jwtJWKSFile: String?
    /// `SLUICE_JWT_ISSUER`: what `iss` must be; nil: it is not looked at.
    package var jwtIssuer: String?
    /// `SLUICE_JWT_AUDIENCE`: what `aud` must hold; nil: a token with an `aud` is refused, as it was made for somebody else (RFC 7519,
    /// 4.1.3).
    package var jwtAudience: String?
    /// `SLUICE_JWT_REQUIRE_EXP` (on): a token without `exp` is refused, as it could never be revoked.
    package var jwtRequiresExpiration = true
    /// `SLUICE_ACCOUNTS_FILE`: lines `tenant:account:hash` or `account:hash` (then the account is its own tenant), `#` for comments;
    /// the hash is bcrypt's `$2b$12$…` (`htpasswd -nB`), or `$scrypt$ln=15,r=8,p=1$<salt>$<hash>` with both in base64 without padding (see
    /// `ScryptHash`).
    package var accountsFile: String?
    /// `SLUICE_AUTH=none`: nobody is asked for anything, any key is accepted.
    package var none = false
    /// `SLUICE_AUTH_NONE_ANYWHERE=1`: `none` on other addresses than the loopback ones as well.
    package var noneAnywhere = false
    /// `SLUICE_ADMIN_KEY`: for the operator's page; at least 16 bytes.
    package var adminKey: String?
    /// `SLUICE_VIEWER_KEY`: for those who may look at the operator's page and do nothing; at least 16 bytes.
    package var viewerKey: String?
    /// Whether the gateway listens on loopback addresses only.
    package var listensOnLoopback = true

    package init() {}

    /// Whether a host name or address that a gateway listens on can be reached from its own machine alone.
    package static func isLoopback(_ host: String) -> Bool {
        let name = host.hasPrefix("[") && host.hasSuffix("]") ? String(host.dropFirst().dropLast()) : host
        if name == "localhost" || name == "::1" { return true }
        let parts = name.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts[0] == "127" && parts.allSatisfy { UInt8($0) != nil }
    }
}

/// Why nobody could be authenticated with these settings. Names settings, files and lines, never a secret.
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
