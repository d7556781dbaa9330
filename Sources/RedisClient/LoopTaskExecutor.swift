import NIOCore

/// Keeps a task on an event loop between its actor's turns too. An answer that a task waits for resumes it "wherever nonisolated code
/// runs" (swift_continuation_init names the generic executor), and only from there it goes back to its actor: on Swift's shared pool
/// that is two changes of thread an answer, with this executor preferred none.
package final class LoopTaskExecutor: TaskExecutor {
    private let eventLoop: any EventLoop

    package init(_ eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    package func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        eventLoop.execute { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }
}
