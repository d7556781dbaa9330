import Glibc
import Support
import Synchronization

package struct WaitedInVain: Error, CustomStringConvertible {
    package let description: String

    package init(description: String) { self.description = description }
}

extension Duration {
    /// The time after which a wait fails. A wait ends as soon as its condition holds, so a long deadline costs nothing, and a busy machine
    /// may need many seconds for what takes milliseconds otherwise.
    package static let testDeadline = Duration.seconds(120)
}

/// Polls until `probe` returns a value. Only for state of other processes that cannot be observed by a signal.
///
/// An error of the probe counts as "not yet"; the last one is reported after the deadline.
@discardableResult
package func until<Value>(
    _ what: String, deadline: Duration = .testDeadline, every: Duration = .milliseconds(5), isolation: isolated (any Actor)? = #isolation,
    _ probe: () async throws -> Value?
) async throws -> Value {
    let end = ContinuousClock.now + deadline
    var last: (any Error)?
    while true {
        do { if let value = try await probe() { return value } } catch { last = error }
        guard ContinuousClock.now < end else {
            throw WaitedInVain(description: "waited \(deadline) in vain for: \(what)" + (last.map { " (last error: \($0))" } ?? ""))
        }
        try await Task.sleep(for: every)
    }
}

package func until(
    _ what: String, deadline: Duration = .testDeadline, every: Duration = .milliseconds(5), isolation: isolated (any Actor)? = #isolation,
    _ probe: () async throws -> Bool
) async throws {
    let _: Bool = try await until(what, deadline: deadline, every: every) { try await probe() ? true : nil }
}

/// CLOCK_MONOTONIC in nanoseconds, the clock of the simulator's times.
package func monotonicNanoseconds() -> Int {
    let time = SystemCalls.time(of: CLOCK_MONOTONIC)
    return time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Shared state that a test can wait for. Every change resumes the waiting tasks.
package final class Observed<State: Sendable>: Sendable {
    private struct Guarded {
        var state: State
        var waiting: [UInt64: CheckedContinuation<Void, Never>] = [:]
        var next: UInt64 = 0
    }

    private let guarded: Mutex<Guarded>

    package init(_ state: State) { guarded = Mutex(Guarded(state: state)) }

    package var value: State { guarded.withLock { $0.state } }

    package func read<Value: Sendable>(_ body: (State) -> Value) -> Value { guarded.withLock { body($0.state) } }

    @discardableResult
    package func update<Value: Sendable>(_ body: (inout State) -> Value) -> Value {
        let (value, waiting) = guarded.withLock { guarded in
            let value = body(&guarded.state)
            defer { guarded.waiting = [:] }
            return (value, guarded.waiting)
        }
        for continuation in waiting.values { continuation.resume() }
        return value
    }

    /// Waits until `body` returns a value. `body` may change the state, such as remove a frame; this does not resume other tasks.
    /// - Parameter what: a description of the awaited condition, called with the current state after the deadline.
    package func wait<Value: Sendable>(
        deadline: Duration = .testDeadline, _ what: @Sendable (State) -> String, until body: @Sendable (inout State) throws -> Value?
    ) async throws -> Value {
        let end = ContinuousClock.now + deadline
        let alarm = Task {
            try await Task.sleep(until: end)
            update { _ in }
        }
        defer { alarm.cancel() }
        while true {
            if let value = try guarded.withLock({ try body(&$0.state) }) { return value }
            guard ContinuousClock.now < end else {
                throw WaitedInVain(description: "waited \(deadline) in vain for: \(what(value))")
            }
            try Task.checkCancellation()
            await change(body)
        }
    }

    /// Returns after the next change, or at once when a change since the last check satisfies `body`.
    private func change<Value>(_ body: @Sendable (inout State) throws -> Value?) async {
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
            let now = guarded.withLock { guarded -> Bool in
                var copy = guarded.state
                // The next iteration throws an error of `body`.
                let satisfied: Bool
                do { satisfied = try body(&copy) != nil } catch { satisfied = true }
                if satisfied { return true }
                guarded.waiting[guarded.next] = continuation
                guarded.next += 1
                return false
            }
            if now { continuation.resume() }
        }
    }
}
