import Contract
import JobQueue
import RedisClient

/// What to do when Redis did not answer a submission: it may have the job, and may still get it, as long as the bytes lie unread in a
/// stopped server.
extension JobQueue {
    /// Submits; when the answer is lost the same submission is sent again: if the first one was carried out, the script says so and nothing
    /// is doubled.
    ///
    /// When Redis stays away for too long, or refuses the repetition, the durable interrupt is written as soon as it can be: should the
    /// first submission still arrive, its job ends without running, so that a client that was told of a failure and tries again never gets
    /// two. With an idempotency key that client finds the job instead, and it stays.
    /// - Parameter patience: for how long it is sent again.
    func submitSurely(
        _ job: Job, options: SubmitOptions, patience: Patience, errands: Errands
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
            let answer = await patience.until { () async throws(RedisError) in try await submit(job, options: options) }
            GatewayMetrics.submitted(answer)
            switch answer {
            case .accepted, .exists, .repeated: break
            case .full, .ownerFull, .conflict, .sessionLost, .sessionUnsaved, nil: if options.idempotency == nil { revoke(job.id, errands) }
            }
            guard let answer else { throw error }
            return answer
        }
    }

    private func revoke(_ id: JobID, _ errands: Errands) {
        errands.start {
            await Patience.seconds(600).until { () async throws(RedisError) in
                try await forceInterrupt(id, reason: InterruptReason.clientError)
            }
        }
    }
}
