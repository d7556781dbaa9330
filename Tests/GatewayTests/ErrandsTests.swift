import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import RedisClient
import Testing

@testable import Gateway

/// Completion and cancellation of background tasks.
@Suite(.timeLimit(.minutes(3))) struct ErrandsTests {
    @Test func `settle waits for running tasks`() async throws {
        let errands = Errands()
        let (open, door) = AsyncStream.makeStream(of: Void.self)
        let isOver = NIOLockedValueBox(false)
        errands.start {
            for await _ in open {}
            isOver.withLockedValue { $0 = true }
        }
        errands.start { door.finish() }
        await errands.settle(within: .seconds(30))
        #expect(isOver.withLockedValue { $0 })
    }

    @Test func `tasks started after the cancellation are cancelled`() async throws {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let (errands, room) = (Errands(), LoopRoom(LoopExecutor(loop)))
        errands.cancel()
        let cancelled = NIOLockedValueBox(0)
        let count: @Sendable () async -> Void = {
            let (never, _) = AsyncStream.makeStream(of: Void.self)
            for await _ in never {}
            if Task.isCancelled { cancelled.withLockedValue { $0 += 1 } }
        }
        errands.start(count)
        try await loop.submit { errands.start(in: room) { _ in await count() } }.get()
        await errands.settle(within: .seconds(30))
        #expect(cancelled.withLockedValue { $0 } == 2)
    }
}
