import Contract
import Logging

extension Job {
    /// Log metadata that identifies the job: see `Logger.Metadata.job(_:traceparent:)`.
    package var logMetadata: Logger.Metadata { .job(id, traceparent: traceparent) }

    /// The job's log metadata together with `more`.
    package func logMetadata(_ more: Logger.Metadata) -> Logger.Metadata { logMetadata.merging(more) { $1 } }
}

extension Logger.Metadata {
    /// Log metadata of a job: its id as `job`, and its trace id as `trace` when the trace context is valid.
    package static func job(_ id: JobID, traceparent: String?) -> Logger.Metadata {
        var metadata: Logger.Metadata = ["job": "\(id)"]
        if let trace = traceparent.flatMap(TraceParent.init) { metadata["trace"] = "\(trace.traceID)" }
        return metadata
    }
}
