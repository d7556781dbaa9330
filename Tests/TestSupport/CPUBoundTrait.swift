import Synchronization
import Testing

/// Runs suites that compute for seconds one after the other, and each of them serially. Swift Testing starts all tests at once on as many
/// threads as there are cores; without this trait such suites occupy every thread, and the deadlines of other tests expire.
package struct CPUBoundTrait: SuiteTrait, TestScoping {
    package func provideScope(for test: Test, testCase: Test.Case?, performing function: @concurrent @Sendable () async throws -> Void)
        async throws
    {
        await Turn.shared.begin()
        defer { Turn.shared.end() }
        try await function()
    }
}

extension Trait where Self == CPUBoundTrait {
    /// For suites that compute for more than about a second. Combine it with `.serialized`.
    package static var cpuBound: Self { CPUBoundTrait() }
}

/// A fair lock for tasks.
private final class Turn: Sendable {
    static let shared = Turn()

    private struct State {
        var isTaken = false
        var waiting: [CheckedContinuation<Void, Never>] = []
    }

    private let state = Mutex(State())

    func begin() async {
        await withCheckedContinuation { continuation in
            let isFree = state.withLock { state in
                guard state.isTaken else {
                    state.isTaken = true
                    return true
                }
                state.waiting.append(continuation)
                return false
            }
            if isFree { continuation.resume() }
        }
    }

    func end() {
        let next = state.withLock { state -> CheckedContinuation<Void, Never>? in
            guard !state.waiting.isEmpty else {
                state.isTaken = false
                return nil
            }
            return state.waiting.removeFirst()
        }
        next?.resume()
    }
}
