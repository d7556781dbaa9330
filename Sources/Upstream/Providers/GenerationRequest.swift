import Contract
import JSONCodec

/// What is asked of an upstream, in the one form all adapters translate from.
package struct GenerationRequest: Sendable {
    package var jobID: JobID
    /// The OpenAI chat-completions body of the job, `model` filled in.
    package var body: JSONObject
    /// Text that was already generated (an earlier attempt's) and is to be continued.
    package var continuation: String?
    package var traceparent: String?
    package init(jobID: JobID, body: JSONObject) {
        self.jobID = jobID
        self.body = body
    }
}
