import HTTPTypes
import Hummingbird
import NIOCore

/// `GET /`: the chat page.
struct ChatPage: Sendable {
    func add(to router: Router<GatewayRequestContext>) {
        router.get("/") { _, _ in
            Response(status: .ok, headers: [.contentType: "text/html; charset=utf-8"], body: .init(byteBuffer: ByteBuffer(string: "soon")))
        }
    }
}
