import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import RedisClient
import Testing

@testable import Gateway

/// Completion and cancellation of background tasks.
@Suite(.timeLimit(.minutes(10))) struct BackgroundTasksTests {
    @Test func `settle waits for running tasks`() async throws {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let backgroundTasks = BackgroundTasks(eventLoop: loop, executor: LoopExecutor(loop))
        let (open, door) = AsyncStream.makeStream(of: Void.self)
        let isOver = NIOLockedValueBox(false)
        backgroundTasks.start {
            for await _ in open {}
            isOver.withLockedValue { $0 = true }
        }
        backgroundTasks.start { door.finish() }
        await backgroundTasks.finish(within: .seconds(30))
        #expect(isOver.withLockedValue { $0 })
    }

    @Test func `tasks started after the cancellation are cancelled`() async throws {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let backgroundTasks = BackgroundTasks(eventLoop: loop, executor: LoopExecutor(loop))
        backgroundTasks.cancel()
        let cancelled = NIOLockedValueBox(0)
        let count: @Sendable () async -> Void = {
            let (never, _) = AsyncStream.makeStream(of: Void.self)
            for await _ in never {}
            if Task.isCancelled { cancelled.withLockedValue { $0 += 1 } }
        }
        backgroundTasks.start(count)
        try await loop.submit { backgroundTasks.startOnLoop(count) }.get()
        await backgroundTasks.finish(within: .seconds(30))
        #expect(cancelled.withLockedValue { $0 } == 2)
    }
}
