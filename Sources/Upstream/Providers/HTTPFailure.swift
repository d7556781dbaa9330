import Contract
import CurlTransport
import Support

/// Maps responses with an error status to failures.
enum HTTPFailure {
    /// Maximum number of bytes of an error body that are kept and parsed.
    static let keptBodyBytes = 64 * 1024

    /// The failure code for a status, without the provider's message.
    static func code(status: Int) -> FailureCode {
        switch status {
        case 401: .authentication
        case 403: .permission
        case 404: .modelNotFound
        // The upstream timed out; a retry may succeed.
        case 408: .upstreamError
        case 429: .rateLimited
        case 402: .quotaExhausted
        case 503, 529: .overloaded
        case 500...: .upstreamError
        case 400..<500: .invalidRequest
        default: .upstreamProtocol
        }
    }

    /// The failure for a response that is not 2xx. The upstream's key is redacted.
    static func failure(
        head: HTTPResponseHead, body: [UInt8], upstream: UpstreamConfiguration, secondsSinceEpoch: Int
    ) -> UpstreamFailure {
        let provider = ProviderError(body: body)
        var failure: Failure
        if (300..<400).contains(head.status) {
            failure = Failure(
                .upstreamProtocol,
                "redirect refused: upstream \(upstream.name) answered \(head.status); set its url to the redirect's target",
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

    /// Derives the failure code from the status. The provider's error code may refine it only as far as the status allows.
    private static func code(head: HTTPResponseHead, provider: ProviderError?, kind: UpstreamConfiguration.Kind) -> FailureCode {
        let base = code(status: head.status)
        guard let providerCode = provider?.failureCode(kind: kind) else { return base }
        let refinements: Set<FailureCode> =
            switch head.status {
            case 400, 413, 422: [.contentFiltered, .quotaExhausted, .modelNotFound, .authentication, .rateLimited]
            case 401: []
            case 403: [.quotaExhausted, .rateLimited, .contentFiltered]
            case 429: [.quotaExhausted, .overloaded]
            case 451: [.contentFiltered]
            case 500...599: [.overloaded, .rateLimited]
            default: []
            }
        return refinements.contains(providerCode) ? providerCode : base
    }

    /// Describes an error body without a known error object: plain text itself, otherwise size and type.
    private static func excerpt(_ body: [UInt8], _ contentType: String) -> String {
        guard !body.isEmpty else { return "no message" }
        guard contentType.hasPrefix("text/plain") || contentType.isEmpty else {
            return "\(body.count) bytes of \(contentType.isEmpty ? "an unnamed type" : contentType.cut(toBytes: 100))"
        }
        return String(decoding: body, as: UTF8.self)
    }

    /// Maximum number of bytes kept of a message and of a request id.
    static let keptMessageBytes = 600
    static let keptRequestIDBytes = 128

    /// Cuts a message to `limit` bytes and replaces the upstream's key, which some providers repeat in messages. A key that begins within
    /// the limit is replaced as a whole: part of a key is also secret.
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
