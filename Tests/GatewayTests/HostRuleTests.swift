import TestSupport
import Testing

@testable import Gateway

/// Protection against DNS rebinding, by which a web page's host name resolves to 127.0.0.1.
@Suite(.redis, .timeLimit(.minutes(10))) struct HostRuleTests {
    @Test(arguments: [
        ("localhost", true), ("LocalHost:8080", true), ("127.0.0.1", true), ("127.9.9.9:1", true), ("[::1]", true), ("[::1]:8080", true),
        ("evil.example", false), ("evil.example:8080", false), ("127.0.0.1.evil.example", false), ("localhost.evil.example", false),
        ("10.0.0.1", false), ("0.0.0.0", false), ("[::]:80", false), ("", false), ("127.0.0.1:80:80", false), ("localhost:evil", false),
        ("evil@127.0.0.1", false), ("127.0.0.1@evil.example", false), ("localhost:123456", false), ("::1", false),
    ])
    func `only loopback hosts are allowed without authentication`(host: String, isAllowed: Bool) {
        #expect(HostRule.loopback.allows([host]) == isAllowed)
        #expect(HostRule.any.allows([host]))
    }

    @Test func `the rule follows the settings`() {
        var settings = AuthenticationSettings()
        func isAny() -> Bool { HostRule(settings).allows(["evil.example"]) }
        #expect(isAny())
        settings.none = true
        #expect(!isAny() && HostRule(settings).allows([]))
        settings.noneAnywhere = true
        #expect(isAny())
    }

    @Test func `a gateway without authentication rejects foreign hosts on every route and for WebSockets`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway("open") {
                $0.authentication.apiKeys = nil
                $0.authentication.none = true
            }
            let upgrade =
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            for path in ["/", "/v1/models", "/metrics", "/ws/agent/stream"] {
                for (host, isAllowed) in [("evil.example:\(gateway.port)", false), ("127.0.0.1:\(gateway.port)", true)] {
                    let connection = try await RawHTTPConnection(gateway.port)
                    let headers = path.hasPrefix("/ws") ? upgrade : "Connection: close\r\n"
                    try await connection.send("GET \(path) HTTP/1.1\r\nHost: \(host)\r\n\(headers)\r\n")
                    try await connection.wait(for: "\r\n\r\n")
                    let answer = connection.received.value
                    #expect(answer.hasPrefix("HTTP/1.1 403 ") == !isAllowed, "\(path) of \(host): \(answer.prefix(200))")
                    if !isAllowed { #expect(try await connection.end().contains("host_refused")) }
                    try await connection.close()
                }
            }
        }
    }
}
