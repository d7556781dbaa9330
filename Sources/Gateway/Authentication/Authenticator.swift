import Logging
import NIOConcurrencyHelpers
import NIOCore

/// Authenticates credentials with the methods of the settings. Thread-safe.
package final class Authenticator: Sendable {
    private static let minimumAdminKeyLength = 16
    /// Maximum length of a key or token in bytes. Longer ones are rejected unread.
    private static let maximumCredentialLength = JSONWebTokens.maximumLength
    /// Maximum length of an account name or password in bytes, because both are held in the queue of checks.
    private static let maximumPasswordLength = 1_024

    /// The contents of the settings and their files.
    private struct Credentials: Sendable {
        let keys: APIKeys
        let tokens: JSONWebTokens?
        let accounts: Accounts?
    }

    private let settings: AuthenticationSettings
    private let logger: Logger
    private let credentials: NIOLockedValueBox<Credentials>
    private let verifier: PasswordVerifier?
    private let failures = NIOLockedValueBox(FailedLogins())
    private let adminDigest: [UInt8]?
    private let viewerDigest: [UInt8]?
    /// Whether authentication is disabled (`SLUICE_AUTH=none`).
    package let isOpen: Bool

    /// Reads the files that the settings name.
    /// - Throws: `AuthenticationError` when a setting or file is invalid or no method is configured.
    package init(settings: AuthenticationSettings, logger: Logger) throws(AuthenticationError) {
        let found = try Self.read(settings, logger: logger)
        self.settings = settings
        self.logger = logger
        credentials = NIOLockedValueBox(found)
        verifier = found.accounts.map { _ in PasswordVerifier() }
        adminDigest = try Self.operatorDigest(settings.adminKey, setting: "SLUICE_ADMIN_KEY")
        viewerDigest = try Self.operatorDigest(settings.viewerKey, setting: "SLUICE_VIEWER_KEY")
        guard adminDigest == nil || adminDigest != viewerDigest else {
            throw AuthenticationError(
                .invalidAdminKey, "SLUICE_VIEWER_KEY equals SLUICE_ADMIN_KEY: viewers would have full access; set different keys")
        }
        isOpen = settings.none
        guard !settings.none || settings.listensOnLoopback || settings.noneAnywhere else {
            throw AuthenticationError(
                .noneNotAllowed,
                "SLUICE_AUTH=none requires a loopback address, and this gateway listens on another one: configure keys, or set "
                    + "SLUICE_AUTH_NONE_ANYWHERE=1 if something in front of it authenticates")
        }
        guard settings.none || !found.keys.isEmpty || found.tokens != nil || found.accounts != nil else {
            throw AuthenticationError(
                .noMethod,
                "no authentication method is configured: set SLUICE_API_KEYS (tenant:key,…), SLUICE_JWT_KEY_FILE, SLUICE_JWT_JWKS_FILE or "
                    + "SLUICE_ACCOUNTS_FILE, or SLUICE_AUTH=none on a loopback address")
        }
    }

    /// Reads the files of keys and accounts again. Connections that are already authenticated stay so.
    /// - Throws: as `init`; the previous credentials stay in use then.
    package func reload() throws(AuthenticationError) {
        let found = try Self.read(settings, logger: logger)
        credentials.withLockedValue { $0 = found }
    }

    /// Whether the settings name a file that `reload` reads.
    package var readsFiles: Bool {
        [settings.apiKeysFile, settings.jwtKeyFile, settings.jwtJWKSFile, settings.accountsFile].contains { $0 != nil }
    }

    private static func read(_ settings: AuthenticationSettings, logger: Logger) throws(AuthenticationError) -> Credentials {
        var keys = APIKeys()
        if let text = settings.apiKeys { try keys.add(text, setting: "SLUICE_API_KEYS") }
        if let path = settings.apiKeysFile {
            try keys.add(SettingFile.read(path, setting: "SLUICE_API_KEYS_FILE"), setting: "SLUICE_API_KEYS_FILE")
        }
        let accounts = try settings.accountsFile.map { (path) throws(AuthenticationError) in
            try Accounts(parsing: SettingFile.read(path, setting: "SLUICE_ACCOUNTS_FILE"), setting: "SLUICE_ACCOUNTS_FILE")
        }
        return Credentials(keys: keys, tokens: try tokens(settings, logger: logger), accounts: accounts)
    }

    private static func tokens(_ settings: AuthenticationSettings, logger: Logger) throws(AuthenticationError) -> JSONWebTokens? {
        var keys: [JWTVerificationKey] = []
        if let path = settings.jwtKeyFile {
            let setting = "SLUICE_JWT_KEY_FILE"
            keys.append(try JWTVerificationKey(file: SettingFile.read(path, setting: setting), setting: setting))
        }
        if let path = settings.jwtJWKSFile {
            let setting = "SLUICE_JWT_JWKS_FILE"
            keys += try JWTVerificationKey.set(parsing: SettingFile.read(path, setting: setting), setting: setting)
        }
        guard !keys.isEmpty else { return nil }
        return JSONWebTokens(
            keys: keys, issuer: settings.jwtIssuer, audience: settings.jwtAudience, requiresExpiration: settings.jwtRequiresExpiration,
            logger: logger)
    }

    /// The result of an authentication.
    package enum Verdict: Sendable, Equatable {
        case tenant(Tenant)
        case refused
        /// Too many password checks of this address and account are waiting; the credential was not checked.
        case busy
    }

    /// The tenant of a credential; nil when it is invalid or was not checked. Without authentication, always `anonymous`.
    package func authenticate(_ credential: Credential, from address: String = "") async -> Tenant? {
        if case .tenant(let tenant) = await verdict(credential, from: address) { tenant } else { nil }
    }

    /// Checks a credential. Refusals are logged at a limited rate and delayed increasingly for repeated failures of an address.
    /// - Parameter address: the client's IP address; without it refusals are not delayed.
    package func verdict(_ credential: Credential, from address: String = "") async -> Verdict {
        if isOpen { return .tenant(.anonymous) }
        let verdict = await check(credential, from: address)
        if verdict == .refused, !credential.isEmpty { await refused("\(credential)", from: address) }
        return verdict
    }

    private func check(_ credential: Credential, from address: String) async -> Verdict {
        let credentials = credentials.withLockedValue { $0 }
        let tenant: Tenant?
        switch credential {
        case .apiKey(let key): tenant = Self.tenant(ofKey: key, in: credentials.keys)
        case .jwt(let token): tenant = await credentials.tokens?.tenant(of: token)
        case .bearer(let text):
            if let known = Self.tenant(ofKey: text, in: credentials.keys) { return .tenant(known) }
            tenant = JSONWebTokens.isToken(text) ? await credentials.tokens?.tenant(of: text) : nil
        case .account(let name, let password):
            guard max(name.utf8.count, password.utf8.count) <= Self.maximumPasswordLength, let accounts = credentials.accounts,
                let verifier
            else { return .refused }
            let matches = await verifier.matches(password, hashes: accounts.hashes(for: name), address: address, account: name)
            guard let matches else { return .busy }
            tenant = matches ? accounts.tenant(of: name) : nil
        }
        return tenant.map(Verdict.tenant) ?? .refused
    }

    /// Counts and logs a refused credential, then waits for the delay of its response. Without an address there is no delay.
    /// - Parameter credential: the kind of credential, without any of its text.
    func refused(_ credential: String, from address: String) async {
        let now = Int(NIODeadline.now().uptimeNanoseconds / 1_000_000)
        let answer = failures.withLockedValue { $0.add(address: address, now: now) }
        if answer.isLogged {
            logger.notice(
                "log-in failed",
                metadata: [
                    "credential": "\(credential)", "address": "\(address)", "answer_held_back": "\(answer.delay) ms",
                    "unlogged_before": "\(answer.unlogged)",
                ])
        }
        guard answer.delay > 0, !address.isEmpty else { return }
        // A cancelled task sends no response, so the delay is not needed.
        do { try await Task.sleep(for: .milliseconds(answer.delay)) } catch { return }
    }

    /// The role of an operator's key; nil for an unknown key. Disabled authentication (`isOpen`) grants no operator role.
    package func operatorRole(key: String) -> OperatorRole? {
        guard key.utf8.count <= Self.maximumCredentialLength else { return nil }
        let digest = APIKeys.digest(key)
        if let adminDigest, APIKeys.equal(digest, adminDigest) { return .admin }
        if let viewerDigest, APIKeys.equal(digest, viewerDigest) { return .viewer }
        return nil
    }

    /// Whether an operator key is configured; without one the dashboard is disabled.
    package var hasOperators: Bool { adminDigest != nil || viewerDigest != nil }

    /// The digest of an operator key.
    /// - Throws: `invalidAdminKey` when it is too short.
    private static func operatorDigest(_ key: String?, setting: String) throws(AuthenticationError) -> [UInt8]? {
        guard let key else { return nil }
        guard key.utf8.count >= minimumAdminKeyLength else {
            throw AuthenticationError(
                .invalidAdminKey, "\(setting) is shorter than \(minimumAdminKeyLength) bytes; create one with: openssl rand -hex 16")
        }
        return APIKeys.digest(key)
    }

    private static func tenant(ofKey key: String, in keys: APIKeys) -> Tenant? {
        key.utf8.count <= maximumCredentialLength ? keys.tenant(of: key) : nil
    }
}

/// The permissions of an operator.
package enum OperatorRole: String, Sendable {
    /// Full access (`SLUICE_ADMIN_KEY`).
    case admin
    /// Read-only access (`SLUICE_VIEWER_KEY`).
    case viewer
}
