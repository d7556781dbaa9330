import Logging
import NIOConcurrencyHelpers
import NIOCore

/// Says whose credential it is, by the methods that the settings name.
package final class Authenticator: Sendable {
    private static let minimumAdminKeyLength = 16
    /// No longer key or token is looked at.
    private static let maximumCredentialLength = JSONWebTokens.maximumLength
    /// No longer account name or password: both wait in a queue of checks.
    private static let maximumPasswordLength = 1_024

    /// What the files of the settings hold.
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
    /// Whether nobody needs a credential (`SLUICE_AUTH=none`).
    package let isOpen: Bool

    /// Reads the files that the settings name.
    /// - Throws: with the setting, the file and the line at fault, or when no method is configured.
    package init(settings: AuthenticationSettings, logger: Logger) throws(AuthenticationError) {
        let found = try Self.read(settings, logger: logger)
        self.settings = settings
        self.logger = logger
        credentials = NIOLockedValueBox(found)
        verifier = found.accounts.map { _ in PasswordVerifier() }
        adminDigest = try Self.operatorDigest(settings.adminKey, setting: "SLUICE_ADMIN_KEY")
        viewerDigest = try Self.operatorDigest(settings.viewerKey, setting: "SLUICE_VIEWER_KEY")
        guard adminDigest == nil || adminDigest != viewerDigest else {
            throw AuthenticationError(.invalidAdminKey, "SLUICE_VIEWER_KEY is the same as SLUICE_ADMIN_KEY: who may only look could act")
        }
        isOpen = settings.none
        guard !settings.none || settings.listensOnLoopback || settings.noneAnywhere else {
            throw AuthenticationError(
                .noneNotAllowed,
                "SLUICE_AUTH=none is for loopback addresses; this gateway listens on another one: configure keys, or set "
                    + "SLUICE_AUTH_NONE_ANYWHERE=1 if something in front of it authenticates")
        }
        guard settings.none || !found.keys.isEmpty || found.tokens != nil || found.accounts != nil else {
            throw AuthenticationError(
                .noMethod,
                "nobody could use this gateway: set SLUICE_API_KEYS (tenant:key,…), SLUICE_JWT_KEY_FILE, SLUICE_JWT_JWKS_FILE or "
                    + "SLUICE_ACCOUNTS_FILE, or SLUICE_AUTH=none on a loopback address")
        }
    }

    /// Reads the files of keys and accounts again. Connections that are authenticated already are not asked again.
    /// - Throws: as `init`; then everything stays as it was.
    package func reload() throws(AuthenticationError) {
        let found = try Self.read(settings, logger: logger)
        credentials.withLockedValue { $0 = found }
    }

    /// Whether there is a file that `reload` reads.
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

    /// What is to be said to one who shows a credential.
    package enum Verdict: Sendable, Equatable {
        case tenant(Tenant)
        case refused
        /// Too many passwords of this address and account wait to be verified: it was not looked at.
        case busy
    }

    /// - Returns: nil for a credential that is not good, or was not looked at. Where none is asked for, everybody is `anonymous`.
    package func authenticate(_ credential: Credential, from address: String = "") async -> Tenant? {
        if case .tenant(let tenant) = await verdict(credential, from: address) { tenant } else { nil }
    }

    /// Refusals are logged, within bounds, and come later and later while an address collects them.
    /// - Parameter address: the client's.
    package func verdict(_ credential: Credential, from address: String = "") async -> Verdict {
        if isOpen { return .tenant(.anonymous) }
        let verdict = await look(credential, from: address)
        if verdict == .refused, !credential.isEmpty { await refused("\(credential)", from: address) }
        return verdict
    }

    private func look(_ credential: Credential, from address: String) async -> Verdict {
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

    /// Counts and logs a refused credential and waits as long as its answer is held back. Without an address nothing is held back.
    /// - Parameter credential: what it was, without any of its text.
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
        // A task that is cancelled has nobody to answer.
        do { try await Task.sleep(for: .milliseconds(answer.delay)) } catch { return }
    }

    /// Who an operator's key belongs to; without the settings nobody is one, not even where everybody is let in.
    package func operatorRole(key: String) -> OperatorRole? {
        guard key.utf8.count <= Self.maximumCredentialLength else { return nil }
        let digest = APIKeys.digest(key)
        if let adminDigest, APIKeys.equal(digest, adminDigest) { return .admin }
        if let viewerDigest, APIKeys.equal(digest, viewerDigest) { return .viewer }
        return nil
    }

    /// Whether there is any key for operators.
    package var hasOperators: Bool { adminDigest != nil || viewerDigest != nil }

    private static func operatorDigest(_ key: String?, setting: String) throws(AuthenticationError) -> [UInt8]? {
        guard let key else { return nil }
        guard key.utf8.count >= minimumAdminKeyLength else {
            throw AuthenticationError(.invalidAdminKey, "\(setting) has fewer than \(minimumAdminKeyLength) bytes")
        }
        return APIKeys.digest(key)
    }

    private static func tenant(ofKey key: String, in keys: APIKeys) -> Tenant? {
        key.utf8.count <= maximumCredentialLength ? keys.tenant(of: key) : nil
    }
}

/// What an operator may do.
package enum OperatorRole: String, Sendable {
    /// Look and act (`SLUICE_ADMIN_KEY`).
    case admin
    /// Look (`SLUICE_VIEWER_KEY`).
    case viewer
}
