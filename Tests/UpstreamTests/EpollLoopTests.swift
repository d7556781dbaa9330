import Glibc
import NIOConcurrencyHelpers
import Support
import TestSupport
import Testing

@testable import CurlTransport

/// Isolated to the loop; records the order of events.
private actor EventRecorder: PinnedActor {
    nonisolated let loop: EpollLoop
    nonisolated var executor: EpollLoop { loop }
    private(set) var marks: [String] = []
    private var waiters: [(Int, CheckedContinuation<Void, Never>)] = []

    init(_ loop: EpollLoop) { self.loop = loop }

    func mark(_ text: String) {
        marks.append(text)
        waiters.removeAll { count, waiter in
            guard marks.count >= count else { return false }
            waiter.resume()
            return true
        }
    }

    func wait(for count: Int) async {
        if marks.count < count { await withCheckedContinuation { waiters.append((count, $0)) } }
    }

    func schedule(_ milliseconds: Int, _ text: String) -> @Sendable () -> Void {
        let timer = loop.schedule(after: .milliseconds(milliseconds)) { self.mark(text) }
        nonisolated(unsafe) let held = timer
        return { self.assumeIsolated { $0.loop.cancel(unsafe held) } }
    }

    func run(_ body: @Sendable (isolated EventRecorder) -> Void) { body(self) }
}

@Suite(.timeLimit(.minutes(10)))
struct EpollLoopTests {
    private static func with(_ body: (EpollLoop) async throws -> Void) async throws {
        let loop = try EpollLoop(name: "test")
        loop.start()
        defer { loop.stop() }
        try await body(loop)
    }

    @Test func `an actor runs on the loop`() async throws {
        try await Self.with { loop in
            let actor = EventRecorder(loop)
            await actor.run { _ in #expect(loop.isIsolatingCurrentContext() == true) }
            #expect(loop.isIsolatingCurrentContext() == false)
        }
    }

    @Test func `closures from other threads are isolated to the actor`() async throws {
        try await Self.with { loop in
            let actor = EventRecorder(loop)
            loop.execute { actor.assumeIsolated { $0.mark("executed") } }
            await actor.wait(for: 1)
            #expect(await actor.marks == ["executed"])
        }
    }

    @Test func `closures of one thread keep their order`() async throws {
        try await Self.with { loop in
            let actor = EventRecorder(loop)
            for index in 0..<1000 { loop.execute { actor.assumeIsolated { $0.mark("\(index)") } } }
            await actor.wait(for: 1000)
            #expect(await actor.marks == (0..<1000).map(String.init))
        }
    }

    @Test func `no wake-up is lost with many threads`() async throws {
        try await Self.with { loop in
            let actor = EventRecorder(loop)
            await withTaskGroup(of: Void.self) { group in
                for _ in 0..<8 {
                    group.addTask {
                        for index in 0..<500 {
                            loop.execute { actor.assumeIsolated { $0.mark("") } }
                            // Lets the loop become idle from time to time.
                            if index % 50 == 0 { await actor.run { _ in } }
                        }
                    }
                }
            }
            await actor.wait(for: 4000)
        }
    }

    @Test func `a job may release the loop while the thread that queued it is still queueing`() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    for _ in 0..<3000 {
                        let loop = try EpollLoop(name: "test")
                        loop.start()
                        let actor = EventRecorder(loop)
                        await actor.run { _ in }
                        // The loop falls asleep, so that the next job has to wake it, which is when its thread overtakes this one.
                        let end = loop.now + 50_000
                        while loop.now < end {}
                        // The loop's thread may end, and the actor and the loop may be released, before `enqueue` returns.
                        await actor.run { $0.loop.stop() }
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    @Test func `timers fire in order and never early`() async throws {
        try await Self.with { loop in
            let actor = EventRecorder(loop)
            let start = loop.now
            await actor.run { actor in
                _ = actor.schedule(12, "third")
                _ = actor.schedule(4, "first")
                _ = actor.schedule(4, "second")
                actor.schedule(8, "never")()
            }
            await actor.wait(for: 3)
            #expect(await actor.marks == ["first", "second", "third"])
            #expect(loop.now - start >= 12_000_000)
        }
    }

    @Test func `a timer that sets itself again does not block other work`() async throws {
        try await Self.with { loop in
            let actor = EventRecorder(loop)
            await actor.run { actor in
                nonisolated(unsafe) var timer: LoopTimer?
                let spinning = LoopTimer {
                    if let timer = unsafe timer { loop.set(timer, after: .zero) }
                }
                unsafe timer = spinning
                loop.set(spinning, after: .zero)
            }
            loop.execute { actor.assumeIsolated { $0.mark("executed") } }
            await actor.wait(for: 1)
        }
    }

    @Test func `the end of a turn comes after its work`() async throws {
        try await Self.with { loop in
            let actor = EventRecorder(loop)
            await actor.run { actor in
                // Closures passed to `execute` in a timer run in the same turn, before its end.
                _ = loop.schedule(after: .zero) {
                    actor.assumeIsolated { actor in
                        loop.atEndOfTurn { actor.assumeIsolated { $0.mark("end") } }
                        loop.execute { actor.assumeIsolated { $0.mark("executed") } }
                        actor.mark("timer")
                    }
                }
            }
            await actor.wait(for: 3)
            #expect(await actor.marks == ["timer", "executed", "end"])
        }
    }

    @Test func `work that schedules work does not block timers`() async throws {
        try await Self.with { loop in
            let actor = EventRecorder(loop)
            let going = NIOLockedValueBox(true)
            @Sendable func repeatWork() { if going.withLockedValue({ $0 }) { loop.execute(repeatWork) } }
            loop.execute(repeatWork)
            await actor.run { _ = $0.schedule(2, "fired") }
            await actor.wait(for: 1)
            going.withLockedValue { $0 = false }
        }
    }

    @Test func `closures passed before the start or before the stop still run`() async throws {
        let loop = try EpollLoop(name: "test")
        let ran = NIOLockedValueBox(0)
        let (ended, continuation) = AsyncStream.makeStream(of: Void.self)
        loop.execute { ran.withLockedValue { $0 += 1 } }
        loop.start()
        loop.start()
        loop.execute {
            loop.stop()
            loop.execute {
                ran.withLockedValue { $0 += 1 }
                continuation.yield()
            }
        }
        for await _ in ended { break }
        #expect(ran.withLockedValue { $0 } == 2)
        loop.stop()
    }

    @Test func `the thread ends and releases the loop`() async throws {
        weak var weakly: EpollLoop?
        do {
            let loop = try EpollLoop(name: "test")
            weakly = loop
            loop.start()
            loop.stop()
        }
        // The thread drops the last reference when it ends.
        while weakly != nil { await Task.yield() }
    }

    @Test func `a job after the stop traps`() async throws {
        await #expect(processExitsWith: .failure) {
            let loop = try EpollLoop(name: "test")
            loop.start()
            loop.stop()
            while loop.isRunning { usleep(100) }
            await EventRecorder(loop).run { _ in }
        }
    }

    @Test func `calls from other threads trap where only the loop may call`() async throws {
        await #expect(processExitsWith: .failure) {
            let loop = try EpollLoop(name: "test")
            loop.start()
            _ = loop.schedule(after: .zero) {}
        }
    }
}

struct LoopTimersTests {
    @Test func `random timers are returned in order`() {
        var generator = SplitMix64(seed: 7)
        var timers = LoopTimers()
        var set: [LoopTimer] = []
        for _ in 0..<2000 {
            let timer = LoopTimer {}
            timers.set(timer, deadline: generator.next() % 500)
            set.append(timer)
        }
        // A third cancelled, a third moved.
        for index in set.indices where index % 3 == 0 { timers.remove(set[index]) }
        for index in set.indices where index % 3 == 1 { timers.set(set[index], deadline: generator.next() % 500) }
        let expected = set.filter(\.isSet).map(\.deadline).sorted()
        #expect(timers.count == expected.count)
        var popped: [UInt64] = []
        while let timer = timers.popDue(now: .max, before: .max) { popped.append(timer.deadline) }
        #expect(popped == expected)
        #expect(timers.count == 0)
    }

    @Test func `cancelled timers are removed`() {
        var timers = LoopTimers()
        for index in 0..<10_000 {
            let timer = LoopTimer {}
            timers.set(timer, deadline: UInt64(index))
            timers.remove(timer)
            timers.remove(timer)
        }
        #expect(timers.count == 0)
    }
}
