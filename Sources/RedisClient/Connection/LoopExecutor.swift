import NIOCore

/// An event loop as the place of actors and of their tasks.
///
/// A task that prefers it stays on the loop between its actor's turns. An answer that it waits for resumes it wherever nonisolated code
/// runs (swift_continuation_init names the generic executor), and only from there it goes back to its actor: by way of Swift's shared pool
/// that is two changes of thread an answer, here none, and as the same object is both executors no second pass through the loop's queue
/// (swiftlang/swift#85668). Actors that call each other should share one for the same reason.
package final class LoopExecutor: SerialExecutor, TaskExecutor {
    private let eventLoop: any EventLoop

    package init(_ eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    package func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        eventLoop.execute { job.runSynchronously(isolatedTo: self.asUnownedSerialExecutor(), taskExecutor: self.asUnownedTaskExecutor()) }
    }

    package func isIsolatingCurrentContext() -> Bool? { eventLoop.inEventLoop }

    package func checkIsolated() { eventLoop.preconditionInEventLoop() }
}
