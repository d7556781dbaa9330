import Contract
import CurlTransport
import JSONCodec
import JobQueue
import TestSupport
import Testing

@testable import Worker

@Suite(.timeLimit(.minutes(5))) struct WebhookTests {
    @Test func `requests are signed as in Standard Webhooks`() throws {
        // The example of the specification.
        let target = WebhookSettings.Target(url: "http://h", secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        #expect(
            WebhookMessage.signature(
                target.signingKey, "msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp: 1_614_265_330,
                Array(#"{"test": 2432232314}"#.utf8)) == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
        let webhook = DueWebhook(
            job: try #require(JobID("p0-x")), type: "response.completed", owner: "a", created: 1_700_000_000, attempt: 1)
        let message = WebhookMessage(webhook)
        let json = try JSON(parsing: message.body)
        #expect(json["id"] == "evt_p0-x" && json["object"] == "event" && json["created_at"] == 1_700_000_000)
        #expect(json["type"] == "response.completed" && json["data"]?["id"] == "resp_p0-x")
        let request = message.request(to: .init(url: "http://localhost/", secret: "s"), timestamp: 5)
        #expect(request.headers.prefix(2) == ["webhook-id: evt_p0-x", "webhook-timestamp: 5"])
        #expect(message.request(to: .init(url: "http://localhost/", secret: ""), timestamp: 5).headers.count == 2)
    }

    @Test func `a tenant's own receiver goes first`() {
        var settings = WebhookSettings()
        #expect(WebhookTargets(settings).target(of: "a") == nil)
        settings.target = .init(url: "http://all", secret: "1")
        settings.tenants["a"] = .init(url: "http://a", secret: "2")
        let targets = WebhookTargets(settings)
        #expect(targets.target(of: "a")?.url == "http://a" && targets.target(of: "b")?.url == "http://all")
        targets.replace(["default": .init(url: "http://new", secret: "3")])
        #expect(targets.target(of: "a")?.url == "http://new" && targets.target(of: "b")?.secret == "3")
        targets.replace([:])
        #expect(targets.target(of: "a")?.url == "http://all")
    }

    @Test func `deliveries are made to allowed addresses, without following redirects`() async throws {
        func answer(_ head: String) -> String { "HTTP/1.1 \(head)\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" }
        let receiver = try await CannedUpstream.start([
            .init(word: "POST /taken", bytes: answer("204 No Content")), .init(word: "POST /failed", bytes: answer("500 Oops")),
            .init(word: "POST /moved", bytes: answer("302 Found\r\nlocation: /taken")),
        ])
        let loop = try EpollLoop(name: "webhooks")
        loop.start()
        var settings = WebhookSettings()
        func send(_ path: String, host: String = "127.0.0.1") async throws -> String? {
            let client = try WebhookClient(loop: loop, settings: settings)
            return await client.send(HTTPRequest(url: "http://\(host):\(receiver.port)/\(path)", headers: [], body: Array("{}".utf8)))
        }
        // A private address by number and by name: no connection is opened.
        for host in ["127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"] {
            #expect(try await send("taken", host: host)?.contains("SLUICE_WEBHOOK_ALLOW") == true, "\(host)")
        }
        #expect(receiver.requests.isEmpty)
        settings.allow = try #require(AddressRule("127.0.0.1"))
        #expect(try await send("taken") == nil)
        #expect(try await send("failed") == "the receiver answered 500")
        #expect(try await send("moved") == "the receiver answered 302")
        #expect(receiver.requests.count == 3)
        await receiver.close()
    }
}
