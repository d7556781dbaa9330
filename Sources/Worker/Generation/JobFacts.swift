import Contract
import Logging

/// Log metadata of a job.
extension Job {
    /// The id and the trace id of the job, in addition to `more`.
    func facts(_ more: Logger.Metadata = [:]) -> Logger.Metadata {
        var facts = more
        facts["job"] = "\(id)"
        if let trace = traceparent.flatMap(TraceParent.init) { facts["trace"] = "\(trace.traceID)" }
        return facts
    }
}
