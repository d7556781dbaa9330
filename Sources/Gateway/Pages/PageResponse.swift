import Crypto
import HTTPTypes
import Hummingbird
import NIOCore

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// A page of the gateway: one document that needs nothing else.
///
/// Its policy names style and script by their hashes: nothing that gets into the page by another way, a model's words among it, can run.
enum PageResponse {
    /// - Parameters:
    ///   - script: what stands in the document's only `script` element, to the byte.
    ///   - style: the same of `style`.
    static func make(_ document: String, script: String, style: String) -> Response {
        let policy = [
            "default-src 'none'", "script-src '\(hash(script))'", "style-src '\(hash(style))'", "connect-src 'self'", "img-src data:",
            "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
        ]
        return Response(
            status: .ok,
            headers: [
                .contentType: "text/html; charset=utf-8", .cacheControl: "no-cache", .contentSecurityPolicy: policy.joined(separator: "; "),
                .xContentTypeOptions: "nosniff", .referrerPolicy: "no-referrer",
            ], body: ResponseBody(byteBuffer: ByteBuffer(string: document)))
    }

    /// As a policy's source expression (Content Security Policy 3, 2.3.1).
    private static func hash(_ text: String) -> String {
        "sha256-" + Data(SHA256.hash(data: Array(text.utf8))).base64EncodedString()
    }
}

extension HTTPField.Name {
    fileprivate static let referrerPolicy = HTTPField.Name("Referrer-Policy")!
}
