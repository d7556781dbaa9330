extension Task where Success == Void, Failure == Never {
    /// Waits for the end of the task, at most until the deadline. Cancelling the waiting task ends the wait. The awaited task is not cancelled
    /// and may outlive the wait.
    /// - Returns: whether the task has ended.
    @discardableResult
    package func ends(by deadline: ContinuousClock.Instant) async -> Bool {
        let (results, result) = AsyncStream.makeStream(of: Bool.self)
        Task {
            await value
            result.yield(true)
            result.finish()
        }
        let timer = Task {
            // Cancelled after the end of the task.
            try? await Task<Never, Never>.sleep(until: deadline, clock: .continuous)
            result.finish()
        }
        defer { timer.cancel() }
        return await results.first { $0 } ?? false
    }
}
