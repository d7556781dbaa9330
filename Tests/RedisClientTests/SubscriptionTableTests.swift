import NIOCore
import TestSupport
import Testing

@testable import RedisClient

@Suite struct SubscriptionTableTests {
    /// A table with a server that confirms in order, and a record of the events passed to handlers.
    private final class Fixture {
        var table = SubscriptionTable()
        let events = Observed<[String]>([])
        var pending: [String] = []

        func subscribe(_ channel: String, _ name: String) {
            table.subscribe(channel) { [events] event in events.update { $0.append("\(name) \(Self.describe(event))") } }
        }

        func unsubscribe(_ channel: String) { table.unsubscribe(channel) }

        static func describe(_ event: SubscriptionEvent) -> String {
            switch event {
            case .message(let payload): String(buffer: payload)
            case .subscribed: "subscribed"
            case .lost: "lost"
            }
        }

        /// The end of a tick: returns the commands.
        func tick() -> String {
            let changes = table.takeChanges()
            let commands = changes.unsubscribe.map { "-" + String(buffer: $0) } + changes.subscribe.map { "+" + String(buffer: $0) }
            pending += commands
            for handler in changes.inForce { handler(.subscribed) }
            return commands.joined(separator: " ")
        }

        func confirm() { table.confirmed(ByteBuffer(string: String(pending.removeFirst().dropFirst())))?(.subscribed) }
        func message(_ channel: String, _ text: String) {
            table.receiver(of: ByteBuffer(string: channel))?(.message(ByteBuffer(string: text)))
        }
        func lose() { for handler in table.lost() { handler(.lost) } }
    }

    @Test func `a subscription is active once it is confirmed`() {
        let fixture = Fixture()
        fixture.subscribe("c", "a")
        #expect(fixture.tick() == "+c")
        fixture.message("c", "early")
        fixture.confirm()
        fixture.message("c", "1")
        fixture.unsubscribe("c")
        fixture.message("c", "late")
        #expect(fixture.tick() == "-c")
        fixture.confirm()
        fixture.message("c", "later")
        #expect(fixture.events.value == ["a subscribed", "a 1"])
        fixture.subscribe("c", "b")
        #expect(fixture.tick() == "+c")
    }

    @Test func `changes that cancel out within a tick send no command`() {
        let fixture = Fixture()
        fixture.subscribe("c", "a")
        fixture.unsubscribe("c")
        #expect(fixture.tick() == "")
        fixture.subscribe("c", "a")
        _ = fixture.tick()
        fixture.confirm()
        fixture.unsubscribe("c")
        fixture.subscribe("c", "b")
        #expect(fixture.tick() == "")
        fixture.message("c", "1")
        #expect(fixture.events.value == ["a subscribed", "b subscribed", "b 1"])
    }

    @Test func `a subscription during a pending UNSUBSCRIBE`() {
        let fixture = Fixture()
        fixture.subscribe("c", "a")
        _ = fixture.tick()
        fixture.unsubscribe("c")
        #expect(fixture.tick() == "-c")
        fixture.subscribe("c", "b")
        #expect(fixture.tick() == "+c")
        fixture.confirm()
        fixture.message("c", "of the first")
        fixture.confirm()
        #expect(fixture.events.value == [])
        fixture.confirm()
        fixture.message("c", "1")
        #expect(fixture.events.value == ["b subscribed", "b 1"])
    }

    @Test func `a confirmation between a change and its command`() {
        let fixture = Fixture()
        fixture.subscribe("c", "a")
        _ = fixture.tick()
        fixture.unsubscribe("c")
        _ = fixture.tick()
        fixture.confirm()
        fixture.subscribe("c", "b")
        // The UNSUBSCRIBE is confirmed before the new SUBSCRIBE is sent; the entry must remain.
        fixture.confirm()
        #expect(fixture.tick() == "+c")
        fixture.confirm()
        #expect(fixture.events.value == ["a subscribed", "b subscribed"] || fixture.events.value == ["b subscribed"])
    }

    @Test func `a replaced handler is not called again`() {
        let fixture = Fixture()
        fixture.subscribe("c", "a")
        _ = fixture.tick()
        fixture.subscribe("c", "b")
        #expect(fixture.tick() == "")
        fixture.confirm()
        fixture.message("c", "1")
        #expect(fixture.events.value == ["b subscribed", "b 1"])
    }

    @Test func `all subscriptions are restored after a connection loss`() {
        let fixture = Fixture()
        for channel in ["x", "y", "z"] { fixture.subscribe(channel, channel) }
        _ = fixture.tick()
        fixture.unsubscribe("y")
        fixture.lose()
        #expect(fixture.events.value.sorted() == ["x lost", "z lost"])
        fixture.pending = []
        #expect(fixture.table.restore().map { String(buffer: $0) }.sorted() == ["x", "z"])
        #expect(fixture.tick() == "")
        fixture.pending = ["+z"]
        fixture.confirm()
        #expect(fixture.events.value.last == "z subscribed")
    }

    /// Compared with a model of the server.
    @Test(arguments: 1...50 as ClosedRange<UInt64>) func `any order of changes and confirmations ends in the requested state`(
        _ seed: UInt64
    ) {
        var random = SplitMix64(seed: seed)
        let fixture = Fixture()
        var wanted: [String: String] = [:]
        var server: Set<String> = []
        func confirm() {
            let command = fixture.pending[0]
            if command.hasPrefix("+") { server.insert(String(command.dropFirst())) } else { server.remove(String(command.dropFirst())) }
            fixture.confirm()
        }
        for step in 0..<200 {
            let channel = ["a", "b", "c"].randomElement(using: &random) ?? "a"
            switch Int.random(in: 0..<4, using: &random) {
            case 0:
                wanted[channel] = "\(channel)\(step)"
                fixture.subscribe(channel, "\(channel)\(step)")
            case 1:
                wanted[channel] = nil
                fixture.unsubscribe(channel)
            case 2: _ = fixture.tick()
            default: if !fixture.pending.isEmpty { confirm() }
            }
        }
        _ = fixture.tick()
        while !fixture.pending.isEmpty { confirm() }
        #expect(server == Set(wanted.keys))
        for name in wanted.values { #expect(fixture.events.value.filter { $0 == "\(name) subscribed" }.count == 1) }
    }
}
