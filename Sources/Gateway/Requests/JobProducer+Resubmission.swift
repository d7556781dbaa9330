import Contract
import JobQueue
import RedisClient

/// Handling of submissions without a reply. Redis may have executed them, or may still do so when a stalled server reads the bytes later.
extension JobProducer {
    /// Submits a job, and repeats the submission when the reply is lost. The script recognizes a repetition, so the job is not duplicated.
    ///
    /// When Redis stays unreachable for too long or rejects the repetition, the interrupt key is written in the background: if the first
    /// submission is executed later, its job ends without running, so a client that retries after the error does not get two jobs. With an
    /// idempotency key the client's retry finds the first job instead, so no interrupt is written.
    /// - Parameter patience: how long the submission is repeated.
    /// - Throws: the first error when no attempt was answered, or an error that repetition cannot mend.
    func submitSurely(
        _ job: Job, options: SubmitOptions, patience: RetryPolicy, backgroundTasks: BackgroundTasks
    ) async throws(RedisError) -> Submission {
        do {
            let submission = try await submit(job, options: options)
            GatewayMetrics.submitted(submission)
            return submission
        } catch {
            guard error.code == .connectionLost || error.code == .timeout else {
                GatewayMetrics.submitted(nil)
                throw error
            }
            let answer = await patience.run { () async throws(RedisError) in try await submit(job, options: options) }
            GatewayMetrics.submitted(answer)
            switch answer {
            case .accepted, .exists, .repeated: break
            case .full, .ownerFull, .conflict, .sessionLost, .sessionUnsaved, nil:
                if options.idempotency == nil { revoke(job.id, backgroundTasks) }
            }
            guard let answer else { throw error }
            return answer
        }
    }

    /// Stores an interrupt key for a job that may not exist (yet), in the background.
    private func revoke(_ id: JobID, _ backgroundTasks: BackgroundTasks) {
        backgroundTasks.start {
            await RetryPolicy.seconds(600).run { () async throws(RedisError) in
                try await forceInterrupt(id, reason: InterruptReason.clientError)
            }
        }
    }
}
