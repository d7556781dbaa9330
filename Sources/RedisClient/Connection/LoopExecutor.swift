import NIOCore
import Support

/// Runs actors and tasks on an event loop: a serial executor and a task executor in one object.
///
/// A task with this executor preference stays on the loop between calls of its actor. Without it, a resumed continuation first runs on the
/// global executor (swift_continuation_init names the generic one) and then hops to the actor: two thread changes per reply. Because one
/// object is both executors, the resumption needs no second pass through the loop's queue either (swiftlang/swift#85668). Actors that call
/// each other should share one instance for the same reason.
package final class LoopExecutor: SerialExecutor, TaskExecutor {
    private let eventLoop: any EventLoop

    package init(_ eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    package func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        eventLoop.execute { job.run(on: self) }
    }

    package func isIsolatingCurrentContext() -> Bool? { eventLoop.inEventLoop }

    package func checkIsolated() { eventLoop.preconditionInEventLoop() }
}
