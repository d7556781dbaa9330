import Logging

/// Says whose credential it is, by the methods that the settings name.
package final class Authenticator: Sendable {
    private static let minimumAdminKeyLength = 16
    /// No longer credential is looked at.
    private static let maximumCredentialLength = JSONWebTokens.maximumLength

    private let keys: APIKeys
    private let tokens: JSONWebTokens?
    private let accounts: Accounts?
    private let adminDigest: [UInt8]?
    private let viewerDigest: [UInt8]?
    /// Whether nobody needs a credential (`SLUICE_AUTH=none`).
    package let isOpen: Bool

    /// Reads the files that the settings name.
    /// - Throws: with the setting, the file and the line at fault, or when no method is configured.
    package init(settings: AuthenticationSettings, logger: Logger) throws(AuthenticationError) {
        var keys = APIKeys()
        if let text = settings.apiKeys { try keys.add(text, setting: "SLUICE_API_KEYS") }
        if let path = settings.apiKeysFile {
            try keys.add(SettingFile.read(path, setting: "SLUICE_API_KEYS_FILE"), setting: "SLUICE_API_KEYS_FILE")
        }
        self.keys = keys
        tokens = try Self.tokens(settings, logger: logger)
        accounts = try settings.accountsFile.map { (path) throws(AuthenticationError) in
            try Accounts(parsing: SettingFile.read(path, setting: "SLUICE_ACCOUNTS_FILE"), setting: "SLUICE_ACCOUNTS_FILE")
        }
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
        guard settings.none || !keys.isEmpty || tokens != nil || accounts != nil else {
            throw AuthenticationError(
                .noMethod,
                "nobody could use this gateway: set SLUICE_API_KEYS (tenant:key,…), SLUICE_JWT_KEY_FILE, SLUICE_JWT_JWKS_FILE or "
                    + "SLUICE_ACCOUNTS_FILE, or SLUICE_AUTH=none on a loopback address")
        }
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
            keys: keys, issuer: settings.jwtIssuer, audience: settings.jwtAudience, logger: logger)
    }

    /// What is to be said to one who shows a credential.
    package enum Verdict: Sendable, Equatable {
        case tenant(Tenant)
        case refused
        /// Too many passwords wait to be verified: it was not looked at.
        case busy
    }

    /// - Returns: nil for a credential that is not good, or was not looked at. Where none is asked for, everybody is `anonymous`.
    package func authenticate(_ credential: Credential) async -> Tenant? {
        if case .tenant(let tenant) = await verdict(credential) { tenant } else { nil }
    }

    package func verdict(_ credential: Credential) async -> Verdict {
        if isOpen { return .tenant(.anonymous) }
        let tenant: Tenant?
        switch credential {
        case .apiKey(let key): tenant = self.tenant(ofKey: key)
        case .jwt(let token): tenant = await tokens?.tenant(of: token)
        case .bearer(let text):
            if let known = self.tenant(ofKey: text) { return .tenant(known) }
            tenant = JSONWebTokens.isToken(text) ? await tokens?.tenant(of: text) : nil
        case .account(let name, let password):
            guard max(name.utf8.count, password.utf8.count) <= Self.maximumCredentialLength else { return .refused }
            return await accounts?.verdict(account: name, password: password) ?? .refused
        }
        return tenant.map(Verdict.tenant) ?? .refused
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

    private func tenant(ofKey key: String) -> Tenant? {
        key.utf8.count <= Self.maximumCredentialLength ? keys.tenant(of: key) : nil
    }
}

/// What an operator may do.
package enum OperatorRole: String, Sendable {
    /// Look and act (`SLUICE_ADMIN_KEY`).
    case admin
    /// Look (`SLUICE_VIEWER_KEY`).
    case viewer
}
