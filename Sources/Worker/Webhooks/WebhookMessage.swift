import Contract
import Crypto
import CurlTransport
import JSONCodec
import JobQueue
import Support

/// The request that reports the end of a response (OpenAI, "Webhooks"), signed as in Standard Webhooks 1.0.
struct WebhookMessage {
    /// The same for each attempt, so that receivers can recognize repetitions.
    let id: String
    let body: [UInt8]

    init(_ webhook: DueWebhook) {
        id = "evt_" + webhook.job.rawValue
        let json: JSON = [
            "id": .string(id), "object": "event", "created_at": .integer(webhook.created), "type": .string(webhook.type),
            "data": ["id": .string("resp_" + webhook.job.rawValue)],
        ]
        body = json.bytes
    }

    /// - Parameter timestamp: seconds since 1970; receivers refuse old ones.
    func request(to target: WebhookSettings.Target, timestamp: Int) -> HTTPRequest {
        var headers = ["webhook-id: \(id)", "webhook-timestamp: \(timestamp)"]
        if !target.secret.isEmpty {
            headers.append("webhook-signature: " + Self.signature(target.signingKey, id, timestamp: timestamp, body))
        }
        return HTTPRequest(url: target.url, headers: headers, body: body)
    }

    /// The signature of a request: the HMAC-SHA256 of its id, timestamp and body.
    static func signature(_ key: [UInt8], _ id: String, timestamp: Int, _ body: [UInt8]) -> String {
        let signed = Array("\(id).\(timestamp).".utf8) + body
        return "v1," + Base64.encode(Array(HMAC<SHA256>.authenticationCode(for: signed, using: SymmetricKey(data: key))))
    }
}
