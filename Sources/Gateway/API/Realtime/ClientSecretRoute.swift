import Contract
import HTTPTypes
import Hummingbird
import JSONCodec
import JobQueue
import Support

/// `POST /v1/realtime/client_secrets`: short-lived credentials for a browser's Realtime connection.
struct ClientSecretRoute: Sendable {
    /// Valid lifetimes in seconds, and the default one.
    private static let lifetimes = 10...7_200
    private static let defaultLifetime = 600

    let context: GatewayContext

    func add(to group: RouterGroup<GatewayRequestContext>) { group.post("realtime/client_secrets", use: create) }

    @Sendable
    private func create(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        let owner = try requestContext.requireTenant().name
        let body = try await request.collect(upTo: context.settings.sessionMaximum, requestContext.share)
        let settings = context.settings
        let (configuration, session, seconds) = try await requestContext.parse(body) { (bytes) throws(HTTPErrorResponse) in
            try Self.parse(bytes, settings)
        }
        let created = try await onQueue { () throws(QueueError) in
            try await ClientSecrets(queue: context.queue).create(.init(owner: owner, session: session), seconds: seconds)
        }
        guard let secret = created else {
            throw HTTPErrorResponse(.tooManyRequests, code: "rate_limited", "you have too many client secrets; wait until some expire")
        }
        return .json(
            [
                "value": .string(secret), "expires_at": .integer(WallClock.seconds + seconds),
                "session": configuration.json(id: nil, expires: nil),
            ], headers: [.cacheControl: "no-store"])
    }

    private static func parse(
        _ bytes: [UInt8], _ settings: GatewaySettings
    ) throws(HTTPErrorResponse) -> (RealtimeConfiguration, JSON, Int) {
        let json: JSON
        do { json = try JSON(parsing: bytes.isEmpty ? Array("{}".utf8) : bytes, maximumDepth: settings.jsonDepthMaximum) } catch {
            throw HTTPErrorResponse.invalid("the body is not JSON: \(error)")
        }
        var body = try FieldReader(json)
        var seconds = defaultLifetime
        if var expiry = try body.object("expires_after") {
            if let anchor = try expiry.string("anchor"), anchor != "created_at" { throw expiry.unsupported("anchor") }
            if let number = try expiry.positiveInteger("seconds") {
                guard lifetimes.contains(number) else {
                    throw expiry.invalid("seconds", "\(lifetimes.lowerBound) to \(lifetimes.upperBound)")
                }
                seconds = number
            }
            try expiry.finish()
        }
        let session = body.value("session") ?? [:]
        try body.finish()
        var configuration = RealtimeConfiguration(model: settings.defaultModel, detectsTurns: settings.recognizes)
        try configuration.apply(session, setsModel: true)
        return (configuration, session, seconds)
    }
}
