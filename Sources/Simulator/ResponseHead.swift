import NIOCore
import NIOHTTP1

/// Builds response heads as bytes. The simulator frames its bodies itself, so NIO's encoder has no use here.
enum ResponseHead {
    /// The head of a streamed response.
    /// - Parameter keepAlive: False announces that the connection closes after the body.
    static func stream(type: String, chunked: Bool, keepAlive: Bool) -> ByteBuffer {
        var head = ByteBuffer()
        head.writeString("HTTP/1.1 200 OK\r\nContent-Type: \(type)\r\nCache-Control: no-cache\r\n")
        if chunked { head.writeStaticString("Transfer-Encoding: chunked\r\n") }
        if !keepAlive || !chunked { head.writeStaticString("Connection: close\r\n") }
        head.writeStaticString("\r\n")
        return head
    }

    /// A complete response. Statuses 429 and 503 include `Retry-After: 1`.
    static func whole(status: Int, type: String, body: [UInt8], keepAlive: Bool, http10: Bool, allow: String? = nil) -> ByteBuffer {
        let phrase = HTTPResponseStatus(statusCode: status).reasonPhrase
        var response = ByteBuffer()
        response.reserveCapacity(body.count + 256)
        response.writeString(
            "HTTP/1.1 \(status) \(phrase.isEmpty ? "Status" : phrase)\r\nContent-Type: \(type)\r\nContent-Length: \(body.count)\r\n")
        if status == 429 || status == 503 { response.writeStaticString("Retry-After: 1\r\n") }
        if let allow { response.writeString("Allow: \(allow)\r\n") }
        if !keepAlive {
            response.writeStaticString("Connection: close\r\n")
        } else if http10 {
            response.writeStaticString("Connection: keep-alive\r\n")
        }
        response.writeStaticString("\r\n")
        response.writeBytes(body)
        return response
    }
}
