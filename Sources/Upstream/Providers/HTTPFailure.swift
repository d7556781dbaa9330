import Contract
import Support

/// What an answer that is not a 2xx means.
enum HTTPFailure {
    /// Bytes of an error body that are kept and looked at.
    static let keptBodyBytes = 64 * 1024

    /// The code of a status alone.
    static func code(status: Int) -> FailureCode {
        switch status {
        case 401: .authentication
        case 403: .permission
        case 404: .modelNotFound
        // The upstream gave up waiting: sent again it may succeed.
        case 408: .upstreamError
        case 429: .rateLimited
        case 402: .quotaExhausted
        case 503, 529: .overloaded
        case 500...: .upstreamError
        case 400..<500: .invalidRequest
        default: .upstreamProtocol
        }
    }

    static func failure(
        head: HTTPResponseHead, body: [UInt8], upstream: UpstreamConfiguration, secondsSinceEpoch: Int
    ) -> UpstreamFailure {
        let provider = ProviderError(body: body)
        var failure: Failure
        if (300..<400).contains(head.status) {
            failure = Failure(
                .upstreamProtocol, "redirect refused: upstream \(upstream.name) answered \(head.status); set its URL to where it leads",
                upstreamStatus: head.status)
        } else {
            let code = code(head: head, provider: provider, kind: upstream.kind)
            failure = Failure(
                code, "upstream \(upstream.name) answered \(head.status): \(provider?.shown ?? excerpt(body, head.contentType))",
                upstreamStatus: head.status)
        }
        failure.message = redact(failure.message, key: upstream.key)
        return UpstreamFailure(
            failure: failure, retryAfter: head.retryAfter.flatMap { RetryAfter.parse($0, secondsSinceEpoch: secondsSinceEpoch) },
            requestID: (head.requestID ?? provider?.requestID).map { redact($0, key: upstream.key, limit: keptRequestIDBytes) })
    }

    /// The status decides; the provider's words only make it finer, within what the status allows.
    private static func code(head: HTTPResponseHead, provider: ProviderError?, kind: UpstreamConfiguration.Kind) -> FailureCode {
        let base = code(status: head.status)
        guard let words = provider?.failureCode(kind: kind) else { return base }
        let finer: Set<FailureCode> =
            switch head.status {
            case 400, 413, 422: [.contentFiltered, .quotaExhausted, .modelNotFound, .authentication, .rateLimited]
            case 401: []
            case 403: [.quotaExhausted, .rateLimited, .contentFiltered]
            case 429: [.quotaExhausted, .overloaded]
            case 451: [.contentFiltered]
            case 500...599: [.overloaded, .rateLimited]
            default: []
            }
        return finer.contains(words) ? words : base
    }

    private static func excerpt(_ body: [UInt8], _ contentType: String) -> String {
        guard !body.isEmpty else { return "no message" }
        guard contentType.hasPrefix("text/plain") || contentType.isEmpty else {
            return "\(body.count) bytes of \(contentType.isEmpty ? "an unnamed type" : contentType.cut(toBytes: 100))"
        }
        return String(decoding: body, as: UTF8.self)
    }

    /// Bytes of a message that go further than this room.
    static let keptMessageBytes = 600
    static let keptRequestIDBytes = 128

    /// The beginning of a message, the key that providers are seen to repeat replaced. Only what begins within the first `limit` bytes is
    /// looked at, and a key that begins there is replaced whole: half a key is a secret, too.
    static func redact(_ message: String, key: String?, limit: Int = keptMessageBytes) -> String {
        let end = message.cut(toBytes: limit).utf8.count
        let bytes = Array(message.utf8.prefix(limit + (key?.utf8.count ?? 0)))
        let secret = Array((key ?? "").utf8)
        var out: [UInt8] = []
        var position = 0
        while position < end {
            if !secret.isEmpty, bytes[position...].starts(with: secret) {
                out += "[key]".utf8
                position += secret.count
            } else {
                out.append(bytes[position])
                position += 1
            }
        }
        return String(decoding: out, as: UTF8.self).cut(toBytes: limit)
    }
}
