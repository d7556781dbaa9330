/// What a client shows to prove who it is. Its description never holds a secret.
package enum Credential: Sendable, CustomStringConvertible {
    case apiKey(String)
    case account(String, password: String)
    case jwt(String)
    /// A key or a JWT, as `Authorization: Bearer` does not say which.
    case bearer(String)

    /// Whether nothing was shown at all: no attempt to log in.
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

/// Who jobs and sessions belong to: the contract's `owner`.
package struct Tenant: Hashable, Sendable {
    /// Everybody's name where nobody is asked for a key (`SLUICE_AUTH=none`).
    package static let anonymous = Tenant(name: "anonymous")

    package static let maximumNameLength = 128

    package let name: String

    package init(name: String) { self.name = name }

    /// Nil unless the name is 1 to 128 bytes without control characters: it becomes part of Redis keys and of log lines.
    package init?(checking name: String) {
        guard !name.isEmpty, name.utf8.count <= Self.maximumNameLength, name.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7F }) else {
            return nil
        }
        self.name = name
    }
}
