import NIOCore
import TestSupport
import Testing

@testable import RedisClient

@Suite struct SubscriptionTableTests {
    /// Runs a table against a server that confirms in order, and keeps what handlers were told.
    private final class Bench {
        var table = SubscriptionTable()
        let told = Observed<[String]>([])
        var due: [String] = []

        func subscribe(_ channel: String, _ name: String) {
            table.subscribe(channel) { [told] event in told.update { $0.append("\(name) \(Self.describe(event))") } }
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
            due += commands
            for handler in changes.inForce { handler(.subscribed) }
            return commands.joined(separator: " ")
        }

        func confirm() { table.confirmed(ByteBuffer(string: String(due.removeFirst().dropFirst())))?(.subscribed) }
        func message(_ channel: String, _ text: String) {
            table.receiver(of: ByteBuffer(string: channel))?(.message(ByteBuffer(string: text)))
        }
        func lose() { for handler in table.lost() { handler(.lost) } }
    }

    @Test func inForceWhenConfirmed() {
        let bench = Bench()
        bench.subscribe("c", "a")
        #expect(bench.tick() == "+c")
        bench.message("c", "early")
        bench.confirm()
        bench.message("c", "1")
        bench.unsubscribe("c")
        bench.message("c", "late")
        #expect(bench.tick() == "-c")
        bench.confirm()
        bench.message("c", "later")
        #expect(bench.told.value == ["a subscribed", "a 1"])
        bench.subscribe("c", "b")
        #expect(bench.tick() == "+c")
    }

    @Test func whatIsChangedBackWithinATickCostsNothing() {
        let bench = Bench()
        bench.subscribe("c", "a")
        bench.unsubscribe("c")
        #expect(bench.tick() == "")
        bench.subscribe("c", "a")
        _ = bench.tick()
        bench.confirm()
        bench.unsubscribe("c")
        bench.subscribe("c", "b")
        #expect(bench.tick() == "")
        bench.message("c", "1")
        #expect(bench.told.value == ["a subscribed", "b subscribed", "b 1"])
    }

    @Test func subscribedAgainDuringAPendingUnsubscribe() {
        let bench = Bench()
        bench.subscribe("c", "a")
        _ = bench.tick()
        bench.unsubscribe("c")
        #expect(bench.tick() == "-c")
        bench.subscribe("c", "b")
        #expect(bench.tick() == "+c")
        bench.confirm()
        bench.message("c", "of the first")
        bench.confirm()
        #expect(bench.told.value == [])
        bench.confirm()
        bench.message("c", "1")
        #expect(bench.told.value == ["b subscribed", "b 1"])
    }

    @Test func aConfirmationBetweenWishAndTick() {
        let bench = Bench()
        bench.subscribe("c", "a")
        _ = bench.tick()
        bench.unsubscribe("c")
        _ = bench.tick()
        bench.confirm()
        bench.subscribe("c", "b")
        // The UNSUBSCRIBE is confirmed before the new SUBSCRIBE is sent: the entry must stay.
        bench.confirm()
        #expect(bench.tick() == "+c")
        bench.confirm()
        #expect(bench.told.value == ["a subscribed", "b subscribed"] || bench.told.value == ["b subscribed"])
    }

    @Test func aReplacedHandlerIsNotCalledAgain() {
        let bench = Bench()
        bench.subscribe("c", "a")
        _ = bench.tick()
        bench.subscribe("c", "b")
        #expect(bench.tick() == "")
        bench.confirm()
        bench.message("c", "1")
        #expect(bench.told.value == ["b subscribed", "b 1"])
    }

    @Test func afterALossEverythingWantedIsAskedForAgain() {
        let bench = Bench()
        for channel in ["x", "y", "z"] { bench.subscribe(channel, channel) }
        _ = bench.tick()
        bench.unsubscribe("y")
        bench.lose()
        #expect(bench.told.value.sorted() == ["x lost", "z lost"])
        bench.due = []
        #expect(bench.table.restore().map { String(buffer: $0) }.sorted() == ["x", "z"])
        #expect(bench.tick() == "")
        bench.due = ["+z"]
        bench.confirm()
        #expect(bench.told.value.last == "z subscribed")
    }

    /// Against a model of the server: at rest, exactly the wanted channels are subscribed and their handlers know.
    @Test(arguments: 1...50 as ClosedRange<UInt64>) func anyOrderEndsAsWished(_ seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let bench = Bench()
        var wanted: [String: String] = [:]
        var server: Set<String> = []
        func confirm() {
            let command = bench.due[0]
            if command.hasPrefix("+") { server.insert(String(command.dropFirst())) } else { server.remove(String(command.dropFirst())) }
            bench.confirm()
        }
        for step in 0..<200 {
            let channel = ["a", "b", "c"].randomElement(using: &random) ?? "a"
            switch Int.random(in: 0..<4, using: &random) {
            case 0:
                wanted[channel] = "\(channel)\(step)"
                bench.subscribe(channel, "\(channel)\(step)")
            case 1:
                wanted[channel] = nil
                bench.unsubscribe(channel)
            case 2: _ = bench.tick()
            default: if !bench.due.isEmpty { confirm() }
            }
        }
        _ = bench.tick()
        while !bench.due.isEmpty { confirm() }
        #expect(server == Set(wanted.keys))
        for name in wanted.values { #expect(bench.told.value.filter { $0 == "\(name) subscribed" }.count == 1) }
    }
}
