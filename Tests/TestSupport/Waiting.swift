import Glibc
import Synchronization

package struct WaitedInVain: Error, CustomStringConvertible {
    package let description: String

    package init(description: String) { self.description = description }
}

/// Asks again and again until `probe` gives something; only for what can be seen from outside and announces itself to nobody.
///
/// An error of the probe counts as "not yet"; the last one is told when the deadline has passed.
@discardableResult
package func until<Value>(
    _ what: String, deadline: Duration = .seconds(15), every: Duration = .milliseconds(5), isolation: isolated (any Actor)? = #isolation,
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
    _ what: String, deadline: Duration = .seconds(15), every: Duration = .milliseconds(5), isolation: isolated (any Actor)? = #isolation,
    _ probe: () async throws -> Bool
) async throws {
    let _: Bool = try await until(what, deadline: deadline, every: every) { try await probe() ? true : nil }
}

/// CLOCK_MONOTONIC in nanoseconds, the clock that the simulator's times are in.
package func monotonicNanoseconds() -> Int {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// State that others change and a test waits for: every change wakes who waits.
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

    /// Waits until `body` gives something; it may change the state (take a frame out, say), which wakes nobody.
    /// - Parameter what: what was waited for; called when it is too late, with the state as it is then.
    package func wait<Value: Sendable>(
        deadline: Duration, _ what: @Sendable (State) -> String, until body: @Sendable (inout State) throws -> Value?
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

    /// Returns after the next change, or at once when `body` would be satisfied by one that came in between.
    private func change<Value>(_ body: @Sendable (inout State) throws -> Value?) async {
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
            let now = guarded.withLock { guarded -> Bool in
                var copy = guarded.state
                // An error of `body` is thrown by the next round.
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
