import CurlTransport
import Support
import Synchronization

/// Where the ends of background responses are reported.
package struct WebhookSettings: Sendable {
    /// A receiver of webhooks.
    package struct Target: Sendable, Equatable {
        package var url: String
        /// The secret, in the form of Standard Webhooks (`whsec_` and base64) or any text; empty: deliveries are not signed.
        package var secret: String

        package init(url: String, secret: String) {
            self.url = url
            self.secret = secret
        }

        /// Whether receivers get the same key from the secret: after `whsec_` they expect base64.
        package static func isUsable(secret: String) -> Bool { !secret.hasPrefix(prefix) || decoded(secret) != nil }

        private static let prefix = "whsec_"

        /// The key of a secret in the form of Standard Webhooks; nil for one that is not in this form.
        private static func decoded(_ secret: String) -> [UInt8]? {
            var key: [UInt8] = []
            return secret.hasPrefix(prefix) && Base64.decode(String(secret.dropFirst(prefix.count)), into: &key) ? key : nil
        }

        /// The key that signs deliveries.
        var signingKey: [UInt8] { Self.decoded(secret) ?? Array(secret.utf8) }
    }

    /// `SLUICE_WEBHOOK_URL` and `SLUICE_WEBHOOK_SECRET`: the receiver of tenants without their own; nil: none.
    package var target: Target?
    /// The receivers in `SLUICE_TENANTS_FILE`, by tenant; `default` is that of all tenants without their own.
    package var tenants: [String: Target] = [:]
    /// `SLUICE_WEBHOOK_ALLOW`: the addresses that may be connected to.
    package var allow = AddressRule.publicOnly
    /// PEM file with the trusted certificate authorities; nil: the system's.
    package var caFile: String?
    /// How long deliveries are tried.
    package var patience: Duration = .seconds(86_400)

    package init() {}
}

/// The receivers of webhooks, which can be replaced while the worker runs. Thread-safe.
package final class WebhookTargets: Sendable {
    private let target: WebhookSettings.Target?
    private let tenants: Mutex<[String: WebhookSettings.Target]>

    init(_ settings: WebhookSettings) {
        target = settings.target
        tenants = Mutex(settings.tenants)
    }

    /// Replaces the receivers of tenants.
    package func replace(_ tenants: [String: WebhookSettings.Target]) { self.tenants.withLock { $0 = tenants } }

    /// The receiver of an owner's webhooks; nil: none.
    func target(of owner: String) -> WebhookSettings.Target? { tenants.withLock { $0[owner] ?? $0["default"] } ?? target }
}
