import Contract
import Logging

/// What a line of the worker's log says of a job: its id, and the trace that it belongs to.
extension Job {
    func facts(_ more: Logger.Metadata = [:]) -> Logger.Metadata {
        var facts = more
        facts["job"] = "\(id)"
        if let trace = traceparent.flatMap(TraceParent.init) { facts["trace"] = "\(trace.traceID)" }
        return facts
    }
}
