import NIOConcurrencyHelpers
import NIOCore
import Support

/// The tasks of a gateway: the only way from the callbacks of its event loop to asynchronous code, and work that may outlive the request or
/// socket that started it, such as interrupts being sent to Redis. Thread-safe.
///
/// The gateway waits for them before it stops, because a task that resumes on a stopped event loop never completes and its interrupt would
/// be lost.
package final class BackgroundTasks: Sendable {
    private struct State {
        var tasks: [UInt64: Task<Void, Never>] = [:]
        var next: UInt64 = 0
        var isCancelled = false
    }

    private let eventLoop: any EventLoop
    private let executor: any TaskExecutor
    private let state = NIOLockedValueBox(State())

    /// - Parameter executor: runs tasks on `eventLoop`.
    package init(eventLoop: any EventLoop, executor: any TaskExecutor) {
        self.eventLoop = eventLoop
        self.executor = executor
    }

    /// Runs `body` in a task on Swift's shared thread pool. Callable from any thread.
    @discardableResult
    func start(_ body: @escaping @Sendable () async -> Void) -> Task<Void, Never> {
        track { ended in
            Task.detached {
                await body()
                ended()
            }
        }
    }

    /// Runs `body` in a task on the event loop, from the loop's next turn. Must be called on the loop. Meant for work per request, not per
    /// token.
    ///
    /// `body` may use objects that are confined to the loop (sessions, requests, sockets), before and after each suspension: the task's
    /// preferred executor is the loop, and an asynchronous function runs on the executor of its caller. Their state may have changed during
    /// a suspension.
    func startOnLoop(_ body: @escaping () async -> Void) {
        let body = NIOLoopBound(body, eventLoop: eventLoop)
        track { ended in
            Task(executorPreference: executor) {
                await body.value()
                ended()
            }
        }
    }

    /// Starts a task and keeps it until it calls `ended`.
    @discardableResult
    private func track(_ begin: (_ ended: @escaping @Sendable () -> Void) -> Task<Void, Never>) -> Task<Void, Never> {
        state.withLockedValue { state in
            let number = state.next
            state.next += 1
            // The task cannot remove itself before it is stored, since that needs the lock held here.
            let task = begin { [self] in self.state.withLockedValue { $0.tasks[number] = nil } }
            if state.isCancelled { task.cancel() }
            state.tasks[number] = task
            return task
        }
    }

    /// Cancels all running tasks, and all that are started later.
    func cancel() {
        let tasks = state.withLockedValue { state in
            state.isCancelled = true
            return Array(state.tasks.values)
        }
        for task in tasks { task.cancel() }
    }

    private var anyTask: Task<Void, Never>? { state.withLockedValue { $0.tasks.values.first } }

    /// Waits until no task is running, at most for `limit`. Not shortened when the caller is cancelled.
    func finish(within limit: Duration) async {
        await Task.detached { [self] in
            let all = Task.detached { [self] in
                while let task = anyTask { await task.value }
            }
            await all.ends(by: .now + limit)
        }.value
    }
}

extension EventLoop {
    /// Runs `body` on this loop after `delay`. Must be called on the loop.
    /// - Returns: the scheduled task, which the caller may cancel.
    func after(_ delay: Duration, _ body: @escaping () -> Void) -> Scheduled<Void> {
        let body = NIOLoopBound(body, eventLoop: self)
        return scheduleTask(in: TimeAmount(delay)) { body.value() }
    }
}
