import Contract
import Foundation
import JSONCodec
import JobQueue
import NIOCore
import NIOHTTP1

/// Authenticates the client of an upgrade to the Realtime API, by an API key, a token or a client secret.
struct RealtimeAdmission {
    static let path = "/v1/realtime"
    /// The prefix of the subprotocol that carries the key of a browser, which cannot set headers.
    private static let keyPrefix = "openai-insecure-api-key."

    private let token: String?
    private let query: [String: String]
    private let address: String
    private let context: GatewayContext

    /// Nil for another path.
    init?(_ head: HTTPRequestHead, address: String, context: GatewayContext) {
        guard head.uri.prefix(while: { $0 != "?" }) == Self.path else { return nil }
        let subprotocol = Self.subprotocols(head).first { $0.hasPrefix(Self.keyPrefix) }
        token =
            AuthenticationMiddleware.bearer(head.headers.first(name: "authorization"))
            ?? subprotocol.map { String($0.dropFirst(Self.keyPrefix.count)) }
        var query: [String: String] = [:]
        for item in URLComponents(string: head.uri)?.queryItems ?? [] { query[item.name] = item.value ?? "" }
        self.query = query
        self.address = address
        self.context = context
    }

    /// Whether the client offers the subprotocol `realtime`.
    static func offersProtocol(_ head: HTTPRequestHead) -> Bool { subprotocols(head).contains("realtime") }

    private static func subprotocols(_ head: HTTPRequestHead) -> [String] {
        head.headers[canonicalForm: "sec-websocket-protocol"].map(String.init)
    }

    /// Decides about the upgrade.
    /// - Parameter then: called on the event loop.
    func decide(_ then: @escaping (Result<RealtimeGrant, EarlyRefusal>) -> Void) {
        let result = NIOLoopBound(then, eventLoop: context.eventLoop)
        context.backgroundTasks.startOnLoop {
            do throws(EarlyRefusal) { result.value(.success(try await grant())) } catch { result.value(.failure(error)) }
        }
    }

    private func grant() async throws(EarlyRefusal) -> RealtimeGrant {
        for name in ["call_id", "intent"] where query[name] != nil { throw .unsupported(name) }
        let settings = context.settings
        var configuration = RealtimeConfiguration(model: settings.defaultModel, detectsTurns: settings.recognizes)
        let owner: String
        // The session of a client secret; its model cannot be replaced by the query, which SDKs always send.
        var secretSession: JSON?
        if let token, ClientSecrets.isSecret(token), !context.authenticator.isOpen {
            let found: ClientSecrets.Grant?
            do { found = try await ClientSecrets(queue: context.queue).grant(of: token) } catch { throw .unreachable }
            guard let found else {
                await context.authenticator.refused("client secret", from: address)
                throw .unauthenticated(given: true)
            }
            owner = found.owner
            secretSession = found.session
        } else {
            guard let tenant = await context.authenticator.authenticate(.bearer(token ?? ""), from: address) else {
                throw .unauthenticated(given: token != nil)
            }
            owner = tenant.name
            // The session of a secret is honoured without authentication, too.
            if let token, ClientSecrets.isSecret(token) {
                do { secretSession = try await ClientSecrets(queue: context.queue).grant(of: token)?.session } catch { throw .unreachable }
            }
        }
        if let secretSession {
            do { try configuration.apply(secretSession, setsModel: true) } catch { throw .unreachable }
        }
        if secretSession?["model"]?.string == nil, let model = query["model"], !model.isEmpty {
            guard model.utf8.count <= NameLimit.model else { throw .unsupported("model") }
            configuration.model = model
        }
        return RealtimeGrant(owner: owner, configuration: configuration)
    }
}
