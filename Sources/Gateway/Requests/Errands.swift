import NIOConcurrencyHelpers

/// Tasks that may outlive the request or the socket that began them: interrupts on their way to Redis, submissions in doubt, answers that
/// come back to the event loop. A gateway ends when they have: one that came back to an event loop that is gone would be lost, an interrupt
/// with it.
package final class Errands: Sendable {
    private struct State {
        var tasks: [UInt64: Task<Void, Never>] = [:]
        var next: UInt64 = 0
        var isCancelled = false
    }

    private let state = NIOLockedValueBox(State())

    package init() {}

    func start(_ body: @escaping @Sendable () async -> Void) {
        keep { ended in
            Task.detached {
                await body()
                ended()
            }
        }
    }

    /// The same on the room's event loop, from where this is called.
    func start(in room: LoopRoom, _ body: @escaping @Sendable (isolated LoopRoom) async -> Void) {
        keep { ended in
            room.assumeIsolated { room in
                room.begin { room in
                    await body(room)
                    ended()
                }
            }
        }
    }

    private func keep(_ begin: (_ ended: @escaping @Sendable () -> Void) -> Task<Void, Never>) {
        state.withLockedValue { state in
            let number = state.next
            state.next += 1
            // It cannot remove itself before it is kept: for that it needs the lock.
            let task = begin { [self] in self.state.withLockedValue { $0.tasks[number] = nil } }
            if state.isCancelled { task.cancel() }
            state.tasks[number] = task
        }
    }

    /// Asks what runs, and what is still to come, to give up.
    func cancel() {
        let tasks = state.withLockedValue { state in
            state.isCancelled = true
            return Array(state.tasks.values)
        }
        for task in tasks { task.cancel() }
    }

    private var one: Task<Void, Never>? { state.withLockedValue { $0.tasks.values.first } }

    /// Waits until nothing runs, but no longer than `limit`; whether the caller was cancelled does not matter.
    func settle(within limit: Duration) async {
        await Task.detached { [self] in
            let (ended, end) = AsyncStream.makeStream(of: Void.self)
            Task.detached { [self] in
                while let task = one { await task.value }
                end.finish()
            }
            let clock = Task.detached {
                do { try await Task.sleep(for: limit) } catch { return }
                end.finish()
            }
            for await _ in ended {}
            clock.cancel()
        }.value
    }
}
