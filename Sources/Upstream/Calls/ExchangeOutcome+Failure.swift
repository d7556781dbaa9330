import Contract
import CurlTransport

extension ExchangeOutcome {
    /// The failure of an exchange that ended without a complete answer.
    /// - Parameters:
    ///   - upstream: names the upstream inside a sentence, such as "upstream house" or "the speech upstream".
    ///   - head: the head of the response; nil when none arrived.
    ///   - truncation: what a response that ended properly lacks, such as "before the audio was complete".
    func failure(of upstream: String, head: HTTPResponseHead?, hasConnected: Bool, truncation: String) -> Failure {
        func failure(_ code: FailureCode, _ message: String) -> Failure { Failure(code, message, upstreamStatus: head?.status) }
        return switch kind {
        // libcurl reports success when the connection closes inside the response head.
        case .complete where head == nil:
            failure(.upstreamDisconnected, "\(upstream) closed the connection before sending a complete response head")
        case .complete: failure(.upstreamTruncated, "\(upstream) ended its response \(truncation)")
        case .unreachable where !hasConnected: Failure(.upstreamUnreachable, "\(upstream) cannot be reached: \(detail)")
        case .unreachable, .broken: failure(.upstreamDisconnected, "connection to \(upstream) lost: \(detail)")
        case .malformed: failure(.upstreamProtocol, "\(upstream) sent a malformed HTTP response: \(detail)")
        case .impossible:
            Failure(.upstreamUnreachable, "cannot send a request to \(upstream): \(detail); check its URL", retryable: false)
        }
    }
}
