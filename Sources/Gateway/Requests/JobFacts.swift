import Contract
import Logging

/// What a line of the gateway's log says of a job: its id, and the trace that it belongs to.
extension Job {
    var facts: Logger.Metadata { JobFacts.of(id, traceparent: traceparent) }
}

enum JobFacts {
    static func of(_ id: JobID, traceparent: String?) -> Logger.Metadata {
        var facts: Logger.Metadata = ["job": "\(id)"]
        if let trace = traceparent.flatMap(TraceParent.init) { facts["trace"] = "\(trace.traceID)" }
        return facts
    }
}

extension GatewayContext {
    /// Once a job, when Redis has it.
    func tellSubmitted(_ job: Job) {
        var facts = job.facts
        facts["class"] = "\(job.priority.rawValue)"
        facts["model"] = job.model.map { "\($0)" }
        facts["session"] = job.session.map { "\($0)" }
        logger.info("job submitted", metadata: facts)
    }
}
