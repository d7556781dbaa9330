import Contract

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
            requestID: (head.requestID ?? provider?.requestID).map { redact($0, key: upstream.key, limit: keptRequestID) })
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
            return "\(body.count) bytes of \(contentType.isEmpty ? "an unnamed type" : String(contentType.prefix(100)))"
        }
        return String(decoding: body, as: UTF8.self)
    }

    /// Characters of a message that go further than this room.
    static let keptMessage = 600
    static let keptRequestID = 200

    /// Providers are seen to repeat the key that they refuse. Cut to `limit` only after it was looked for: half a key is a secret, too.
    static func redact(_ message: String, key: String?, limit: Int = keptMessage) -> String {
        guard let key, !key.isEmpty else { return String(message.prefix(limit)) }
        var rest = message[...]
        var out = ""
        while let range = rest.firstRange(of: key) {
            out += rest[..<range.lowerBound]
            out += "[key]"
            rest = rest[range.upperBound...]
        }
        return String((out + rest).prefix(limit))
    }
}
