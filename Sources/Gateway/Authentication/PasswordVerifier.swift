import NIOConcurrencyHelpers
import NIOPosix

/// Verifies passwords on two threads of its own, in the order of a `PasswordQueue`. Can be used from any thread.
final class PasswordVerifier: Sendable {
    private static let threadCount = 2

    private struct Check: Sendable {
        let hashes: [PasswordHash]
        let password: String
        /// Receives whether the first hash is the password's; nil: dropped, the queue is full.
        let answer: CheckedContinuation<Bool?, Never>
    }

    private struct State: Sendable {
        var queue = PasswordQueue<Check>()
        var running = 0
    }

    private let threads = NIOThreadPool(numberOfThreads: threadCount)
    private let state = NIOLockedValueBox(State())

    init() { threads.start() }

    deinit { threads.shutdownGracefully { _ in } }

    /// - Parameters:
    ///   - hashes: all of them are computed, so that the time says nothing of the first one; only that one decides.
    ///   - address: the client's.
    /// - Returns: nil when too many checks of this address and account are waiting.
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
                // The pool has ended with its owner: nothing is left that could wait.
                if case .active = threadState { work() }
            }
        }
    }

    /// Runs on a thread of the pool until nothing waits.
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
