import Contract
import Logging

extension Job {
    /// Log metadata of the job. See `JobFacts`.
    var facts: Logger.Metadata { JobFacts.of(id, traceparent: traceparent) }
}

/// Builds the log metadata that identifies a job.
enum JobFacts {
    /// - Returns: the job's id as `job`, and its trace id as `trace` when the trace context is valid.
    static func of(_ id: JobID, traceparent: String?) -> Logger.Metadata {
        var facts: Logger.Metadata = ["job": "\(id)"]
        if let trace = traceparent.flatMap(TraceParent.init) { facts["trace"] = "\(trace.traceID)" }
        return facts
    }
}

extension GatewayContext {
    /// Logs a submitted job. Called once per job, after Redis has accepted it.
    func tellSubmitted(_ job: Job) {
        var facts = job.facts
        facts["class"] = "\(job.priority.rawValue)"
        facts["model"] = job.model.map { "\($0)" }
        facts["session"] = job.session.map { "\($0)" }
        logger.info("job submitted", metadata: facts)
    }
}
