import Contract
import RedisClient

/// Handling of submissions without a reply. Redis may have executed them, or may still do so when a stalled server reads the bytes later.
extension JobProducer {
    /// Submits a job, and repeats the submission when the reply is lost. The script recognizes a repetition, so the job is not duplicated.
    ///
    /// When Redis stays unreachable for too long or rejects the repetition, `ifUnknown` is called: the first submission may still be executed
    /// later, and a client that retries after the error would get two jobs. The caller then runs `revoke`, usually in the background. With an
    /// idempotency key the client's retry finds the first job instead, so `ifUnknown` is not called.
    /// - Parameters:
    ///   - retry: how long the submission is repeated.
    ///   - saveSession: called once when Redis lacks the session of the job or its field for it; writes them again, and returns whether to submit
    ///     once more.
    /// - Throws: the first error when no attempt was answered, or an error that repetition cannot mend.
    package func submit(
        _ job: Job, options: SubmitOptions, repeating retry: RetryPolicy, saveSession: () -> Bool = { false }, ifUnknown: () -> Void
    ) async throws(QueueError) -> Submission {
        var isUncertain = false
        func attempt() async throws(QueueError) -> Submission {
            do { return try await submit(job, options: options) } catch {
                guard error.code == .connectionLost || error.code == .timeout else { throw error }
                isUncertain = true
                let answer = await retry.run { () async throws(QueueError) in try await submit(job, options: options) }
                guard let answer else { throw error }
                return answer
            }
        }
        do {
            var answer = try await attempt()
            if answer == .sessionUnsaved, saveSession() { answer = try await attempt() }
            switch answer {
            case .accepted, .exists, .repeated: break
            case .full, .ownerFull, .quotaExhausted, .conflict, .sessionLost, .sessionUnsaved:
                if isUncertain, options.idempotency == nil { ifUnknown() }
            }
            return answer
        } catch {
            if isUncertain, options.idempotency == nil { ifUnknown() }
            throw error
        }
    }

    /// Stores the interrupt key of a job that may not exist (yet): if its submission is executed later, the job ends without running. Retries
    /// for 10 minutes while Redis is unreachable.
    package func revoke(_ id: JobID) async {
        await RetryPolicy.seconds(600).run { () async throws(QueueError) in
            try await forceInterrupt(id, reason: InterruptReason.clientError)
        }
    }
}
