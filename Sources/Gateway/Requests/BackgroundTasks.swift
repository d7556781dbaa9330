import NIOConcurrencyHelpers
import Support

/// Background tasks that may outlive the request or socket that started them: interrupts being sent to Redis, submissions without a reply,
/// replies that return to the event loop. Thread-safe.
///
/// The gateway waits for them before it stops, because a task that resumes on a stopped event loop never completes and its interrupt would
/// be lost.
package final class BackgroundTasks: Sendable {
    private struct State {
        var tasks: [UInt64: Task<Void, Never>] = [:]
        var next: UInt64 = 0
        var isCancelled = false
    }

    private let state = NIOLockedValueBox(State())

    package init() {}

    /// Runs `body` in a detached task.
    @discardableResult
    func start(_ body: @escaping @Sendable () async -> Void) -> Task<Void, Never> {
        track { ended in
            Task.detached {
                await body()
                ended()
            }
        }
    }

    /// Runs `body` on the room's event loop. Must be called on that loop.
    func start(in room: GatewayActor, _ body: @escaping @Sendable (isolated GatewayActor) async -> Void) {
        track { ended in
            room.assumeIsolated { room in
                room.begin { room in
                    await body(room)
                    ended()
                }
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
