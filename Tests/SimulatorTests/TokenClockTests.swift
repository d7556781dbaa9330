import NIOCore
import NIOPosix
import Testing

@testable import Simulator

@Suite(.timeLimit(.minutes(10))) struct TokenClockTests {
    /// The fired timers, in order. Used on one loop only.
    private final class Firings {
        var order: [(due: UInt64, at: UInt64)] = []
        let promise: EventLoopPromise<Void>
        let awaited: Int

        init(_ promise: EventLoopPromise<Void>, awaited: Int) {
            self.promise = promise
            self.awaited = awaited
        }
    }

    private final class Probe: Timed {
        let firings: Firings
        init(_ firings: Firings) { self.firings = firings }

        override func fire(at now: UInt64) {
            firings.order.append((due, now))
            if firings.order.count == firings.awaited { firings.promise.succeed() }
        }
    }

    @Test func `timers fire in order of their time, and cancelled ones do not`() async throws {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let promise = loop.makePromise(of: Void.self)
        let box = NIOLoopBoundBox.makeEmptyBox(valueType: (TokenClock, Firings, UInt64).self, eventLoop: loop)
        try await loop.submit {
            let clock = TokenClock(eventLoop: loop, tick: 200_000)
            let start = TokenClock.now
            let firings = Firings(promise, awaited: 600)
            let probes = (0..<900).map { _ in Probe(firings) }
            for (index, probe) in probes.enumerated() { clock.wait(probe, until: start + UInt64(index * 7919 % 900) * 20_000) }
            // A third is cancelled, a third rescheduled to earlier or later times.
            for (index, probe) in probes.enumerated() {
                if index % 3 == 0 { clock.cancel(probe) }
                if index % 3 == 1 { clock.wait(probe, until: start + UInt64(index * 31 % 1000) * 25_000) }
            }
            #expect(clock.waiting == 600)
            box.value = (clock, firings, start)
        }.get()
        try await promise.futureResult.get()
        try await loop.submit {
            guard let (clock, firings, _) = box.value else { return }
            box.value = nil
            #expect(clock.waiting == 0)
            #expect(firings.order.count == 600)
            #expect(firings.order.allSatisfy { $0.due <= $0.at })
            #expect(zip(firings.order, firings.order.dropFirst()).allSatisfy { $0.due <= $1.due })
        }.get()
    }

    /// Calls a closure when it fires.
    private final class Reaction: Timed {
        var body: (UInt64) -> Void = { _ in }
        override func fire(at now: UInt64) { body(now) }
    }

    @Test func `a timer that fires may wait again, for the same time too, and cancel itself and others`() async throws {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let promise = loop.makePromise(of: [Int].self)
        try await loop.submit {
            let clock = TokenClock(eventLoop: loop, tick: 200_000)
            let (first, second, third) = (Reaction(), Reaction(), Reaction())
            var calls = [0, 0, 0]
            first.body = { now in
                calls[0] += 1
                clock.cancel(second)
                // The second call waits for a time that has come, the third one does not wait again.
                if calls[0] < 3 { clock.wait(first, until: calls[0] == 1 ? now + 1_000 : now) }
                if calls[0] == 3 { clock.wait(third, until: now) }
            }
            second.body = { _ in calls[1] += 1 }
            third.body = { now in
                calls[2] += 1
                clock.wait(third, until: now + 1_000_000)
                clock.cancel(third)
                promise.succeed(calls + [clock.waiting])
            }
            let start = TokenClock.now
            clock.wait(first, until: start)
            clock.wait(second, until: start + 500)
        }.get()
        #expect(try await promise.futureResult.get() == [3, 0, 1, 0])
    }
}
