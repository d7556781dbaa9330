import Contract
import JobQueue
import NIOCore
import Testing

@testable import Gateway

@Suite struct HTTPEventInboxTests {
    private static func event(_ number: Int, _ text: String = "x") -> LoggedEvent {
        LoggedEvent(id: EventID(attempt: 1, sequence: number), event: .text(text))
    }

    @Test func `events are delivered in order and in batches`() async {
        let inbox = EventInbox(maximumSize: 10_000) {}
        inbox.deliver([Self.event(0)])
        inbox.deliver([Self.event(1), Self.event(2)])
        #expect(await inbox.next() == .events((0..<3).map { Self.event($0) }))
        async let next = inbox.next()
        inbox.deliver([Self.event(3)])
        #expect(await next == .events([Self.event(3)]))
    }

    @Test func `a reader that exceeds the buffer is too slow`() async {
        let (cuts, cut) = AsyncStream.makeStream(of: Void.self)
        let inbox = EventInbox(maximumSize: 1_000) { cut.yield() }
        // A single batch is accepted regardless of its size.
        inbox.deliver([Self.event(0, String(repeating: "x", count: 5_000))])
        inbox.deliver([Self.event(1)])
        for await _ in cuts { break }
        #expect(await inbox.next() == .tooSlow)
        inbox.deliver([Self.event(2)])
        #expect(await inbox.next() == .tooSlow)
    }

    @Test func `a reader that takes nothing for four heartbeats is too slow`() async {
        let (cuts, cut) = AsyncStream.makeStream(of: Void.self)
        let inbox = EventInbox(maximumSize: 1_000) { cut.yield() }
        for _ in 0..<3 { inbox.beat() }
        inbox.deliver([Self.event(0)])
        #expect(await inbox.next() == .events([Self.event(0)]))
        for _ in 0..<4 { inbox.beat() }
        for await _ in cuts { break }
        #expect(await inbox.next() == .tooSlow)
    }

    @Test func `a tenant's inboxes share one limit`() async {
        let output = UnsentOutput(maximum: 25_000)
        let (cuts, cut) = AsyncStream.makeStream(of: Int.self)
        func inbox(_ number: Int, _ tenant: String = "a", _ overflow: EventInbox.Overflow = .cut) -> EventInbox {
            EventInbox(maximumSize: 1_000_000, overflow: overflow, tenant: output.tenant(tenant)) { cut.yield(number) }
        }
        let batch = [Self.event(0, String(repeating: "x", count: 10_000))]
        var (one, two): (EventInbox?, EventInbox?) = (inbox(1), inbox(2))
        let (three, behind, other) = (inbox(3), inbox(4, "a", .fallBehind), inbox(5, "b"))
        // Little is not counted.
        three.deliver([Self.event(0)])
        #expect(output.held(by: "a") == 0)
        #expect(await three.next() == .events([Self.event(0)]))
        one?.deliver(batch)
        two?.deliver(batch)
        other.deliver(batch)
        #expect(output.held(by: "a") == 20_192)
        // What a reader took counts until it comes for more.
        #expect(await one?.next() == .events(batch))
        #expect(output.held(by: "a") == 20_192)
        behind.deliver(batch)
        #expect(await behind.next() == .behind)
        three.deliver(batch)
        for await number in cuts {
            #expect(number == 3)
            break
        }
        #expect(await three.next() == .tooSlow)
        #expect(await other.next() == .events(batch))
        #expect(output.held(by: "a") == 20_192)
        one = nil
        two = nil
        #expect(output.held(by: "a") == 0 && output.held(by: "b") == 10_096)
    }

    @Test func `a disconnect is delivered before buffered events`() async {
        let inbox = EventInbox(maximumSize: 1_000) {}
        inbox.deliver([Self.event(0)])
        inbox.clientGone()
        #expect(await inbox.next() == .clientGone)
        let cancelled = EventInbox(maximumSize: 1_000) {}
        let task = Task { await cancelled.next() }
        task.cancel()
        #expect(await task.value == .clientGone)
    }
}
