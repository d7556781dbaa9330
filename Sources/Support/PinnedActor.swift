/// An actor that runs on a serial executor of its own choice, such as an event loop, instead of the global thread pool.
///
/// Swift asks such an actor for an unowned reference to its executor. That is safe here because the actor keeps `executor` alive: the
/// requirement returns an object that the actor stores, or that an object stored in the actor holds for its whole lifetime.
package protocol PinnedActor: Actor {
    associatedtype PinnedExecutor: SerialExecutor
    /// The same object for the whole lifetime of the actor.
    nonisolated var executor: PinnedExecutor { get }
}

extension PinnedActor {
    @inlinable
    package nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe executor.asUnownedSerialExecutor() }
}

extension UnownedJob {
    /// Runs the job. Must be called once, on the executor's thread.
    @inlinable
    package func run(on executor: some SerialExecutor) { unsafe runSynchronously(on: executor.asUnownedSerialExecutor()) }

    /// Runs the job with a task executor, so that the job's task stays on it between its calls to actors.
    @inlinable
    package func run(on executor: some SerialExecutor & TaskExecutor) {
        unsafe runSynchronously(isolatedTo: executor.asUnownedSerialExecutor(), taskExecutor: executor.asUnownedTaskExecutor())
    }
}
