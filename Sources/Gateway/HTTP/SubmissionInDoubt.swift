import Contract
import JobQueue
import RedisClient

/// What to do when Redis did not answer a submission: it may have the job, and may still get it, as long as the bytes lie unread in a stopped server.
extension JobQueue {
    /// Submits once more when the connection broke before Redis answered: if it had the job all the same it says so.
    func submitSurely(_ job: Job, options: SubmitOptions) async throws(RedisError) -> Submission {
        do {
            let submission: Submission
            do { submission = try await submit(job, options: options) } catch  where error.code == .connectionLost {
                submission = try await submit(job, options: options)
            }
            GatewayMetrics.submitted(submission)
            return submission
        } catch {
            GatewayMetrics.submitted(nil)
            throw error
        }
    }

    /// Sees to it that a job which its client was told is not there never runs: the durable interrupt is written as soon as Redis answers, for up to 10 minutes.
    func revoke(_ id: JobID, after error: RedisError, in errands: Errands) {
        guard error.code == .connectionLost || error.code == .timeout else { return }
        errands.start {
            await Patience.seconds(600).until { () async throws(RedisError) in
                try await forceInterrupt(id, reason: InterruptReason.clientError)
            }
        }
    }
}
