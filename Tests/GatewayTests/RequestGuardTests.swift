import Foundation
import JSONCodec
import NIOCore
import NIOEmbedded
import NIOHTTP1
import TestSupport
import Testing

@testable import Gateway

/// Malformed and unusual requests at the listener. The connection is closed after the response exactly when its further bytes cannot be
/// trusted.
@Suite(.redis, .timeLimit(.minutes(10))) struct RequestGuardTests {
    private struct Case: Sendable {
        let name: String
        let request: String
        /// The beginning of the response; nil when the connection is closed without a response.
        let answer: String?
        var closes = true
    }

    private static let auth = "Host: x\r\nAuthorization: Bearer tenant-a-test-key\r\n"
    private static let upgrade =
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

    private static func post(_ headers: String, _ body: String) -> String { "POST /v1/jobs HTTP/1.1\r\n\(auth)\(headers)\r\n\(body)" }
    private static func socket(_ headers: String) -> String { "GET /ws/agent/stream HTTP/1.1\r\nHost: x\r\n\(headers)\r\n" }

    private static let cases: [Case] = [
        Case(name: "two lengths", request: post("Content-Length: 2\r\nContent-Length: 3\r\n", "{}x"), answer: "HTTP/1.1 400 "),
        Case(
            name: "length and chunks", request: post("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
            answer: "HTTP/1.1 400 "),
        Case(name: "the same length twice", request: post("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"), answer: "HTTP/1.1 400 "),
        Case(name: "two lengths in one", request: post("Content-Length: 2, 2\r\n", "{}"), answer: "HTTP/1.1 400 "),
        Case(
            name: "chunks, then a length", request: post("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", "2\r\n{}\r\n0\r\n\r\n"),
            answer: "HTTP/1.1 400 "),
        Case(
            name: "two transfer codings", request: post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            answer: "HTTP/1.1 400 "),
        Case(
            name: "chunks in HTTP/1.0",
            request: post("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n").replacing("HTTP/1.1", with: "HTTP/1.0"),
            answer: "HTTP/1.1 400 "),
        Case(
            name: "a body of a test",
            request: "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\nContent-Length: 900000\r\n\r\n"
                + String(repeating: "x", count: 300_000), answer: "HTTP/1.1 401 "),
        Case(name: "two codings", request: post("Transfer-Encoding: gzip, chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"), answer: "HTTP/1.1 400 "),
        Case(name: "a length beyond numbers", request: post("Content-Length: 99999999999999999999\r\n", "{}"), answer: "HTTP/1.1 400 "),
        Case(name: "a negative length", request: post("Content-Length: -1\r\n", "{}"), answer: "HTTP/1.1 400 "),
        Case(
            name: "a chunk without size", request: post("Transfer-Encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n"), answer: "HTTP/1.1 400 "),
        Case(name: "no host", request: "GET /healthz HTTP/1.1\r\n\r\n", answer: "HTTP/1.1 400 "),
        Case(name: "two hosts", request: "GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", answer: "HTTP/1.1 400 "),
        Case(name: "a NUL in the path", request: "GET /health\0z HTTP/1.1\r\nHost: x\r\n\r\n", answer: "HTTP/1.1 400 "),
        Case(name: "a NUL in a field", request: "GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", answer: "HTTP/1.1 400 "),
        Case(name: "a folded field", request: "GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n", answer: "HTTP/1.1 400 "),
        Case(name: "bare line feeds", request: "GET /healthz HTTP/1.1\nHost: x\n\n", answer: "HTTP/1.1 400 "),
        Case(name: "HTTP/2 without being asked", request: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", answer: "HTTP/1.1 400 "),
        Case(name: "TLS", request: "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}", answer: "HTTP/1.1 400 "),
        Case(
            name: "a long field", request: "GET /healthz HTTP/1.1\r\nHost: x\r\nX: \(String(repeating: "y", count: 20_000))\r\n\r\n",
            answer: "HTTP/1.1 431 "),
        Case(
            name: "many fields", request: "GET /healthz HTTP/1.1\r\nHost: x\r\n\(String(repeating: "X: y\r\n", count: 300))\r\n",
            answer: "HTTP/1.1 431 "),
        Case(name: "an endless path", request: "GET /\(String(repeating: "y", count: 300_000))", answer: "HTTP/1.1 431 "),
        Case(name: "HTTP/1.0", request: "GET /healthz HTTP/1.0\r\n\r\n", answer: "HTTP/1.0 200 "),
        Case(name: "an upgrade with a body", request: socket(upgrade + "Content-Length: 5\r\n") + "hello", answer: "HTTP/1.1 400 "),
        Case(name: "two origins", request: socket(upgrade + "Origin: http://x\r\nOrigin: http://evil\r\n"), answer: "HTTP/1.1 403 "),
        Case(name: "an incomplete body", request: post("Content-Length: 5\r\n", "{"), answer: "HTTP/1.1 408 "),
        Case(name: "an incomplete head", request: "GET /healthz HTTP/1.1\r\nHos", answer: nil),
        Case(name: "another version of the protocol", request: socket(upgrade.replacing("13", with: "8")), answer: "HTTP/1.1 426 "),
        Case(
            name: "a key of too few bytes", request: socket(upgrade.replacing("dGhlIHNhbXBsZSBub25jZQ==", with: "eA==")),
            answer: "HTTP/1.1 426 "),
        Case(
            name: "a method other than GET", request: socket(upgrade + "Content-Length: 0\r\n").replacing("GET", with: "POST"),
            answer: "HTTP/1.1 426 "),
        Case(
            name: "another protocol to upgrade to",
            request: "GET /healthz HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", answer: "HTTP/1.1 200 "),
        // The connection stays open after the following requests.
        Case(
            name: "extensions are not negotiated", request: socket(upgrade + "Sec-WebSocket-Extensions: permessage-deflate\r\n"),
            answer: "HTTP/1.1 101 ", closes: false),
        Case(
            name: "a chunked body", request: post("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"), answer: "HTTP/1.1 400 ",
            closes: false),
        Case(
            name: "100 Continue for a body", request: post("Expect: 100-continue\r\nContent-Length: 2\r\n", ""), answer: "HTTP/1.1 100 ",
            closes: false),
        Case(
            name: "no 100 Continue for a body that is too large", request: post("Expect: 100-continue\r\nContent-Length: 9999999\r\n", ""),
            answer: "HTTP/1.1 413 ", closes: false),
        Case(name: "HEAD", request: "HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n", answer: "HTTP/1.1 200 ", closes: false),
        Case(name: "OPTIONS", request: "OPTIONS /v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n", answer: "HTTP/1.1 405 ", closes: false),
        Case(
            name: "an absolute target", request: "GET http://x/healthz HTTP/1.1\r\nHost: x\r\n\r\n", answer: "HTTP/1.1 200 ", closes: false),
        Case(
            name: "invalid bytes in an id", request: "GET /v1/jobs/%00%ff%zz HTTP/1.1\r\n\(auth)\r\n", answer: "HTTP/1.1 404 ",
            closes: false),
    ]

    @Test func `each request gets its response, and the gateway keeps serving`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway {
                $0.handshakeTimeout = .seconds(10)
                $0.bodyTimeout = .seconds(10)
            }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for test in Self.cases { group.addTask { try await Self.check(test, gateway.port) } }
                try await group.waitForAll()
            }
            #expect(try await HTTPCall.get(gateway.port, "/readyz").status == 200)
        }
    }

    private static func check(_ test: Case, _ port: Int) async throws {
        let connection = try await RawHTTPConnection(port)
        try await connection.send(test.request)
        if let answer = test.answer {
            try await connection.wait(for: "\r\n\r\n")
            #expect(connection.received.value.hasPrefix(answer), "\(test.name): \(connection.received.value)")
        }
        #expect(!connection.received.value.lowercased().contains("sec-websocket-extensions"), "\(test.name)")
        if test.closes {
            let said = try await connection.end()
            #expect(
                said.matches(of: /HTTP\/1\.[01] [0-9]/).count == (test.answer == nil ? 0 : 1), "\(test.name): one answer, \(said)")
            #expect(test.answer != nil || said == "<closed>", "\(test.name): \(said)")
        } else {
            #expect(!connection.received.value.contains("<closed>"), "\(test.name)")
        }
        try await connection.close()
    }

    /// Counts the reads of the handlers after it.
    private final class ReadCounter: ChannelOutboundHandler {
        typealias OutboundIn = HTTPServerResponsePart
        var reads = 0
        func read(context: ChannelHandlerContext) { reads += 1 }
    }

    @Test func `after its last response a connection reads at most the size of a body`() throws {
        let channel = EmbeddedChannel()
        let counter = ReadCounter()
        let requests = RequestGuard(bodyTimeout: .seconds(30), bodyMaximum: 1 << 20)
        try channel.pipeline.syncOperations.addHandlers([counter, requests])
        for _ in 0..<1_000 { channel.pipeline.read() }
        #expect(counter.reads == 1_000)
        let head = HTTPRequestHead(version: .http1_1, method: .GET, uri: "/", headers: ["host": "x", "Host": "y"])
        try channel.writeInbound(HTTPServerRequestPart.head(head))
        guard case .head(let answer) = try channel.readOutbound(as: HTTPServerResponsePart.self) else {
            Issue.record("no response")
            return
        }
        #expect(answer.status == .badRequest)
        for _ in 0..<1_000 { channel.pipeline.read() }
        #expect(counter.reads == 1_000 + (1 << 20) / GatewayChannel.readSize)
        _ = try channel.finish(acceptAlreadyClosed: true)
    }

    @Test func `frames received with the upgrade request reach the socket`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            let connection = try await RawHTTPConnection(gateway.port)
            let message = Array(WebSocketClient.envelope("REGISTER", ["auth": ["type": "API_KEY", "api_key": "tenant-a-test-key"]]).utf8)
            // A mask of zeros leaves the payload unchanged.
            let frame = [0x81, 0xFE, UInt8(message.count >> 8), UInt8(message.count & 0xFF), 0, 0, 0, 0] + message
            try await connection.send(Array((Self.socket(Self.upgrade)).utf8) + frame)
            try await connection.wait(for: "REGISTER_ACK")
            #expect(connection.received.value.hasPrefix("HTTP/1.1 101 "))
            try await connection.close()
        }
    }

    @Test func `pipelined requests are answered in order, and invalid bytes after them close the connection`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            let connection = try await RawHTTPConnection(gateway.port)
            let get = { (path: String) in "GET \(path) HTTP/1.1\r\nHost: x\r\n\r\n" }
            let statuses = { (text: String) in text.components(separatedBy: "HTTP/1.1 ").dropFirst().map { $0.prefix(3) } }
            try await connection.send(get("/healthz") + get("/nothing") + get("/healthz"))
            try await until("three answers") { statuses(connection.received.value).count == 3 }
            try await connection.send("rubbish\r\n\r\n")
            #expect(statuses(try await connection.end()) == ["200", "404", "200", "400"])
        }
    }

    /// REGISTER as a WebSocket frame. A mask of zeros leaves the payload unchanged.
    private static let register: [UInt8] = {
        let message = Array(WebSocketClient.envelope("REGISTER", ["auth": ["type": "API_KEY", "api_key": "tenant-a-test-key"]]).utf8)
        return [0x81, 0xFE, UInt8(message.count >> 8), UInt8(message.count & 0xFF), 0, 0, 0, 0] + message
    }()

    @Test(arguments: [false, true])
    func `a connection that has served requests can open a WebSocket`(pipelined: Bool) async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            let connection = try await RawHTTPConnection(gateway.port)
            let requests = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
            let upgrade = Array(Self.socket(Self.upgrade).utf8) + Self.register
            if pipelined {
                try await connection.send(Array(requests.utf8) + upgrade)
            } else {
                try await connection.send(requests)
                try await connection.wait(for: "not_found")
                try await connection.send(upgrade)
            }
            try await connection.wait(for: "REGISTER_ACK")
            let statuses = connection.received.value.components(separatedBy: "HTTP/1.1 ").dropFirst().map { $0.prefix(3) }
            #expect(statuses == ["200", "404", "101"])
            try await connection.close()
            // Frames in both directions after the stream of requests is over.
            let client = try await lab.client(gateway)
            await client.close()
        }
    }

    @Test func `a rejected upgrade after other requests waits for their responses`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.allowedOrigins = ["https://chat.example"] }
            let connection = try await RawHTTPConnection(gateway.port)
            try await connection.send(
                "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + Self.socket(Self.upgrade + "Origin: https://evil.example\r\n"))
            let statuses = try await connection.end().components(separatedBy: "HTTP/1.1 ").dropFirst().map { $0.prefix(3) }
            #expect(statuses == ["200", "403"])
        }
    }

    @Test(arguments: ["", "Connection: keep-alive\r\n"])
    func `an HTTP 1_0 client gets no chunks and a closed connection`(header: String) async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            let connection = try await RawHTTPConnection(gateway.port)
            try await connection.send("GET /metrics HTTP/1.0\r\n\(header)\r\n")
            let answer = try await connection.end().lowercased()
            #expect(answer.hasPrefix("http/1.0 200 ") && answer.contains("connection: close\r\n"))
            #expect(!answer.contains("transfer-encoding"))
        }
    }

    @Test func `every response has the id of its request`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            let own = try await HTTPCall.get(gateway.port, "/healthz", headers: ["x-request-id": "mine-1"])
            #expect(own.headers["x-request-id"] == "mine-1")
            for path in ["/healthz", "/nothing", "/v1/models", "/ws/agent/stream"] {
                let id = try await HTTPCall.get(gateway.port, path, headers: ["x-request-id": "not valid"]).headers["x-request-id"]
                #expect(id?.hasPrefix("req_") == true && id?.utf8.count == 20, "\(path)")
            }
            let malformed = try await RawHTTPConnection(gateway.port)
            try await malformed.send("GET / HTTP/1.1\r\n\r\n")
            #expect(try await malformed.end().contains("x-request-id: req_"))
        }
    }
}
