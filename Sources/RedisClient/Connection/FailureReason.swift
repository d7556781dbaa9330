import NIOCore
import NIOPosix
import NIOSSL
import Support

/// The text of a transport error for log and error messages, for example "Connection refused (errno 111)".
func failureReason(_ error: any Error) -> String {
    switch error {
    case let error as NIOConnectionError:
        // With several addresses the first failed one is reported.
        if let attempt = error.connectionErrors.first { failureReason(attempt.error) } else { "the name \(error.host) cannot be resolved" }
    case let error as IOError:
        "\(SystemCalls.errorText(error.errnoCode)) (errno \(error.errnoCode))"
    case ChannelError.connectTimeout(let time):
        "no connection within \(time.readable)"
    case NIOSSLError.handshakeFailed(let detail):
        "the TLS handshake failed: \(detail)"
    case is NIOSSLExtraError, is NIOSSLError:
        "TLS: \(error)"
    default:
        "\(error)"
    }
}
