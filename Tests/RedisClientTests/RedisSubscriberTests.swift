import NIOCore
import TestSupport
import Testing

@testable import RedisClient

@Suite struct RedisSubscriberTests {
    /// Records the events of handlers as "channel event".
    private final class EventRecorder: Sendable {
        let events = Observed<[String]>([])

        func handler(_ channel: String) -> @Sendable (SubscriptionEvent) -> Void {
            { event in
                let text =
                    switch event {
                    case .message(let payload): String(buffer: payload)
                    case .subscribed: "subscribed"
                    case .lost: "lost"
                    }
                self.events.update { $0.append("\(channel) \(text)") }
            }
        }

        func count(_ event: String) -> Int { events.value.count { $0 == event } }

        func wait(_ event: String, times: Int = 1) async throws {
            _ = try await events.wait({ "\(times) × \(event) in \($0.suffix(20))" }) { events in
                events.count { $0 == event } >= times ? true : nil
            }
        }

        func wait(where matches: @escaping @Sendable (String) -> Bool, times: Int) async throws {
            _ = try await events.wait({ "\(times) events, \($0.count)" }) { events in
                events.count(where: matches) >= times ? true : nil
            }
        }
    }

    private static func subscribe(_ subscriber: RedisSubscriber, _ channels: [String], _ recorder: EventRecorder) {
        subscriber.eventLoop.execute {
            for channel in channels { subscriber.subscribe(channel, handler: recorder.handler(channel)) }
        }
    }

    private static func subscribers(of channel: String, _ server: PrivateRedis) async throws -> Int? {
        try await server.command("PUBSUB", "NUMSUB", channel).array?.last?.integer
    }

    @Test func `messages are passed to the handler of their channel`() async throws {
        try await withRedis { server in
            let recorder = EventRecorder()
            try await withSubscriber(server.url) { subscriber in
                Self.subscribe(subscriber, ["a", "b"], recorder)
                try await recorder.wait("a subscribed")
                try await recorder.wait("b subscribed")
                try await server.command("PUBLISH", "a", "1")
                try await server.command("PUBLISH", "b", "2")
                try await server.command("PUBLISH", "a", "")
                try await recorder.wait("a ")
                #expect(recorder.events.value.suffix(3) == ["a 1", "b 2", "a "])
                try await until("the subscriber to be alive") { subscriber.isAlive }
                subscriber.eventLoop.execute { subscriber.unsubscribe("a") }
                try await until("the channel to be unsubscribed") { try await Self.subscribers(of: "a", server) == 0 }
                #expect(try await Self.subscribers(of: "b", server) == 1)
            }
            #expect(recorder.events.value.last == "b lost")
        }
    }

    @Test func `subscriptions are restored after a connection loss`() async throws {
        try await withRedis { server in
            let recorder = EventRecorder()
            let log = CapturedLog()
            let channels = (0..<1_203).map { "channel-\($0)" }
            try await withSubscriber(server.url, log: log) { subscriber in
                Self.subscribe(subscriber, channels, recorder)
                try await recorder.wait(where: { $0.hasSuffix(" subscribed") }, times: channels.count)
                try await server.command("CLIENT", "KILL", "TYPE", "pubsub")
                try await recorder.wait(where: { $0.hasSuffix(" subscribed") }, times: 2 * channels.count)
                #expect(recorder.events.value.count { $0.hasSuffix(" lost") } == channels.count)
                try await server.command("PUBLISH", "channel-1202", "hello")
                try await recorder.wait("channel-1202 hello")
                try await until("the subscriber to be alive") { subscriber.isAlive }
                await server.kill()
                try await recorder.wait("channel-7 lost", times: 2)
                #expect(!subscriber.isAlive)
                try await server.start()
                try await recorder.wait(where: { $0.hasSuffix(" subscribed") }, times: 3 * channels.count)
                #expect(try await Self.subscribers(of: "channel-0", server) == 1)
            }
            #expect(log.lines("redis connection lost").count == 2)
            #expect(log.lines("redis connection restored").count == 2)
        }
    }

    @Test func `a server that stops answering is detected by PING`() async throws {
        try await withRedis { server in
            let proxy = try await FaultProxy.start(to: server.port)
            let recorder = EventRecorder()
            var settings = RedisSettings.forTests
            settings.silence = .seconds(10)
            let log = CapturedLog()
            try await withSubscriber("redis://127.0.0.1:\(proxy.port)", settings: settings, log: log) { subscriber in
                Self.subscribe(subscriber, ["a"], recorder)
                try await recorder.wait("a subscribed")
                // No messages for longer than the silence timeout, but the server answers PINGs.
                let (connections, before) = (proxy.accepted, try await pings(server))
                try await until("three more PINGs") { try await pings(server) >= before + 3 }
                #expect(proxy.accepted == connections)
                try await until("the subscriber to be alive") { subscriber.isAlive }
                let (losses, confirmations) = (recorder.count("a lost"), recorder.count("a subscribed"))
                proxy.set { $0.silent = true }
                try await recorder.wait("a lost", times: losses + 1)
                #expect(!subscriber.isAlive)
                #expect(try await log.wait(for: "redis connection lost").metadata.contains("PING"))
                proxy.heal()
                try await recorder.wait("a subscribed", times: confirmations + 1)
                try await until("the subscriber to be alive") { subscriber.isAlive }
            }
            await proxy.close()
        }
    }

    @Test func `subscriptions that change faster than the server confirms end in the last requested state`() async throws {
        try await withRedis { server in
            let recorder = EventRecorder()
            try await withSubscriber(server.url) { subscriber in
                for round in 0..<200 {
                    // Each in its own tick, without waiting for a confirmation.
                    subscriber.eventLoop.execute { subscriber.subscribe("c", handler: recorder.handler("\(round)")) }
                    if round % 3 != 0 { try await Task.sleep(for: .microseconds(200)) }
                    subscriber.eventLoop.execute { subscriber.unsubscribe("c") }
                    if round % 2 != 0 { try await Task.sleep(for: .microseconds(200)) }
                }
                Self.subscribe(subscriber, ["c"], recorder)
                try await recorder.wait("c subscribed")
                try await server.command("PUBLISH", "c", "last")
                try await recorder.wait("c last")
                #expect(try await Self.subscribers(of: "c", server) == 1)
                #expect(!recorder.events.value.contains { $0 != "c last" && $0.hasSuffix(" last") })
            }
        }
    }

    @Test func `a channel that the server forbids is not reported as subscribed`() async throws {
        var options = PrivateRedis.Options()
        options.arguments = ["--user", "bob", "on", ">pw", "~*", "resetchannels", "&allowed", "+@all"]
        try await withRedis(options) { server in
            let recorder = EventRecorder()
            let log = CapturedLog()
            try await withSubscriber("redis://bob:pw@127.0.0.1:\(server.port)", log: log) { subscriber in
                Self.subscribe(subscriber, ["forbidden"], recorder)
                let line = try await log.wait(for: "redis refuses the connection")
                #expect(line.metadata.contains("NOPERM"))
                #expect(!subscriber.isAlive)
                #expect(!recorder.events.value.contains("forbidden subscribed"))
            }
        }
    }
}
