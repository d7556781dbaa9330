import NIOConcurrencyHelpers
import NIOPosix

/// Verifies passwords on two dedicated threads, in the order of a `PasswordQueue`. Thread-safe.
final class PasswordVerifier: Sendable {
    private static let threadCount = 2

    private struct Check: Sendable {
        let hashes: [PasswordHash]
        let password: String
        /// Resumed with whether the password matches the first hash; nil when the check was dropped.
        let answer: CheckedContinuation<Bool?, Never>
    }

    private struct State: Sendable {
        var queue = PasswordQueue<Check>()
        /// Threads that are running checks.
        var running = 0
    }

    private let threads = NIOThreadPool(numberOfThreads: threadCount)
    private let state = NIOLockedValueBox(State())

    init() { threads.start() }

    deinit { threads.shutdownGracefully { _ in } }

    /// - Parameters:
    ///   - hashes: all are computed, so that the time does not reveal the cost of the first one; only the first one decides.
    ///   - address: the client's IP address.
    /// - Returns: whether the password matches the first hash; nil when the check was dropped because too many are waiting.
    func matches(_ password: String, hashes: [PasswordHash], address: String, account: String) async -> Bool? {
        await withCheckedContinuation { continuation in
            let check = Check(hashes: hashes, password: password, answer: continuation)
            let (dropped, starts) = state.withLockedValue { state in
                let dropped = state.queue.add(check, address: address, account: account)
                let starts = state.running < Self.threadCount
                if starts { state.running += 1 }
                return (dropped, starts)
            }
            dropped?.answer.resume(returning: nil)
            guard starts else { return }
            threads.submit { [self] threadState in
                // The pool is cancelled only after `deinit`, when no check can be waiting.
                if case .active = threadState { work() }
            }
        }
    }

    /// Runs checks on a thread of the pool until none is waiting.
    private func work() {
        while let check = next() {
            let matches = check.hashes.map { $0.matches(check.password) }
            check.answer.resume(returning: matches.first ?? false)
        }
    }

    private func next() -> Check? {
        state.withLockedValue { state in
            let check = state.queue.next()
            if check == nil { state.running -= 1 }
            return check
        }
    }
}
