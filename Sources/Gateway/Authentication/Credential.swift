/// A credential that a client presents. Its description never contains the secret.
package enum Credential: Sendable, CustomStringConvertible {
    case apiKey(String)
    case account(String, password: String)
    case jwt(String)
    /// An API key or a JWT; `Authorization: Bearer` does not distinguish them.
    case bearer(String)

    /// Whether the credential is empty, which does not count as a login attempt.
    var isEmpty: Bool {
        switch self {
        case .apiKey(let text), .jwt(let text), .bearer(let text): text.isEmpty
        case .account(let name, let password): name.isEmpty && password.isEmpty
        }
    }

    package var description: String {
        switch self {
        case .apiKey: "an API key"
        case .account: "an account"
        case .jwt: "a JWT"
        case .bearer: "a bearer token"
        }
    }
}

/// The owner of jobs and sessions; the contract's `owner`.
package struct Tenant: Hashable, Sendable {
    /// The tenant of all clients when authentication is disabled (`SLUICE_AUTH=none`).
    package static let anonymous = Tenant(name: "anonymous")

    /// Maximum length of a name, in bytes.
    package static let maximumNameLength = 128

    package let name: String

    package init(name: String) { self.name = name }

    /// Returns nil unless the name is 1 to 128 bytes without control characters, because it is used in Redis keys and log lines.
    package init?(checking name: String) {
        guard !name.isEmpty, name.utf8.count <= Self.maximumNameLength, name.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7F }) else {
            return nil
        }
        self.name = name
    }
}
