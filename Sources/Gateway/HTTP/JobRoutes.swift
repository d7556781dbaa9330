import Contract
import HTTPTypes
import Hummingbird
import JSONCodec
import JobQueue
import NIOCore
import Support

/// The routes that submit, show and interrupt a job.
struct JobRoutes: Sendable {
    /// Maximum size of an interrupt's body, bytes. It contains only a short reason.
    private static let interruptBodyMaximum = 64 << 10

    let context: GatewayContext

    func add(to group: RouterGroup<GatewayRequestContext>) {
        group.post("jobs", use: submit)
        group.get("jobs/:id", use: show)
        group.post("jobs/:id/interrupt", use: interrupt)
    }

    /// `POST /v1/jobs`, idempotent with an `Idempotency-Key`.
    @Sendable
    private func submit(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        let owner = try requestContext.requireTenant().name
        guard !context.readiness.isDraining else { throw HTTPErrorResponse.draining }
        let body = try await request.collect(upTo: context.settings.bodyMaximum, requestContext.share)
        let partitions = context.queue.partitions
        var options = SubmitOptions()
        var partition = context.queue.newPartition()
        if let idempotency = try JobSubmission.idempotency(request, owner: owner, partitions: partitions) {
            options.idempotency = (idempotency.key, JobSubmission.digest(body))
            partition = idempotency.partition
        }
        let id = JobID(partition: partition, milliseconds: UInt64(clamping: WallClock.milliseconds))
        var job = try await requestContext.parse(body) { (body) throws(HTTPErrorResponse) in
            try JobSubmission.job(parsing: body, id: id, owner: owner, maximumDepth: context.settings.jsonDepthMaximum)
        }
        if job.traceparent == nil { job.traceparent = request.traceparent }
        return Self.accepted(try await context.submitDetached(job, options: options))
    }

    /// 202 with the job's id and path.
    private static func accepted(_ id: JobID) -> Response {
        let path = "/v1/jobs/" + id.rawValue
        return .json(["id": .string(id.rawValue)], status: .accepted, headers: [.location: path])
    }

    /// `GET /v1/jobs/<id>`.
    @Sendable
    private func show(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        let (id, record) = try await context.ownRecord(requestContext)
        return .json(record.json(id: id), headers: [.cacheControl: "no-store"])
    }

    /// `POST /v1/jobs/<id>/interrupt`. An unknown job and one of another tenant give the same response.
    @Sendable
    private func interrupt(_ request: Request, _ requestContext: GatewayRequestContext) async throws -> Response {
        let owner = try requestContext.requireTenant().name
        let maximum = min(context.settings.bodyMaximum, Self.interruptBodyMaximum)
        let reason = try Self.reason(parsing: await request.collect(upTo: maximum, requestContext.share))
        let text = requestContext.jobParameter
        var answer: InterruptAnswer?
        if let id = JobID(text) {
            do {
                answer = try await onQueue { () throws(QueueError) in
                    try await context.queue.interrupt(id, reason: reason, owner: owner)
                }
            } catch {
                GatewayMetrics.interrupted(nil)
                throw error
            }
            GatewayMetrics.interrupted(answer)
        }
        return .json([
            "id": .string(text), "state": .string(answer?.state?.rawValue ?? "unknown"),
            "status": answer?.stored ?? false ? "SUCCESS" : "FAILED",
        ])
    }

    /// Parses the interrupt reason. An empty body, or one without `reason`, means `InterruptReason.userStop`.
    /// - Throws: 400 for an invalid body or reason.
    static func reason(parsing body: [UInt8]) throws(HTTPErrorResponse) -> String {
        guard !body.isEmpty else { return InterruptReason.userStop }
        guard let object = (try? JSON(parsing: body, maximumDepth: 8))?.object else {
            throw HTTPErrorResponse.invalid("the body is not a JSON object")
        }
        switch object["reason"] {
        case nil, .null: return InterruptReason.userStop
        case .string(let reason) where Interrupt.isReason(reason): return reason
        default: throw HTTPErrorResponse.invalid("\"reason\" must be 1 to \(Interrupt.maximumReasonLength) characters of A-Z a-z 0-9 _ . -")
        }
    }
}

extension GatewayContext {
    /// Submits a job that ends neither with its client's connection nor with this gateway.
    /// - Returns: the job's id, or that of the earlier job with the same idempotency key and body.
    /// - Throws: 409 for a key that was used with another body, 429 when a limit is reached, 503 when Redis is unreachable.
    func submitDetached(_ job: Job, options: SubmitOptions) async throws(HTTPErrorResponse) -> JobID {
        let owner = job.owner ?? ""
        guard await submitted.admit(job.id, of: owner, queue: queue) else { throw HTTPErrorResponse.tooManyRunning }
        var isQueued = false
        defer { if !isQueued { submitted.remove(job.id, of: owner) } }
        var options = options
        options.gateway = settings.name
        let submission = try await onQueue { [options] () throws(QueueError) in
            try await submit(job, options: options, repeating: .seconds(0))
        }
        switch submission {
        case .accepted, .exists:
            isQueued = true
            logSubmitted(job)
            return job.id
        case .repeated(let first): return first
        case .full: throw HTTPErrorResponse.queueFull
        case .ownerFull: throw HTTPErrorResponse.tooManyWaiting
        case .quotaExhausted: throw HTTPErrorResponse.quotaExhausted
        case .conflict, .sessionLost, .sessionUnsaved:
            throw HTTPErrorResponse.keyConflict
        }
    }

    /// The record of the job in the request's path.
    /// - Throws: `HTTPErrorResponse.unknownJob` when the job does not exist or has another owner or none; 503 when Redis is unreachable.
    func ownRecord(_ requestContext: GatewayRequestContext) async throws -> (JobID, JobRecord) {
        let owner = try requestContext.requireTenant().name
        guard let id = JobID(requestContext.jobParameter) else { throw HTTPErrorResponse.unknownJob }
        let record = try await onQueue { () throws(QueueError) in try await queue.record(id) }
        guard let record, record.owner == owner else { throw HTTPErrorResponse.unknownJob }
        return (id, record)
    }
}

extension JobRecord {
    /// Fields that are encoded as numbers.
    private static let numbers: Set<String> = [
        "attempt", "crashes", "submitted_ms", "claimed_ms", "dialled_ms", "first_token_ms", "finished_ms",
    ]
    /// The fields of the contract, in the order of the response.
    private static let order = [
        "state", "owner", "session", "class", "model", "attempt", "crashes", "worker", "gateway", "upstream", "submitted_ms", "claimed_ms",
        "dialled_ms", "first_token_ms", "finished_ms", "reason", "code", "usage", "retry_of",
    ]

    /// The record in the form that clients receive: `usage` is an object, numbers are JSON numbers. Empty fields and fields outside the
    /// contract are omitted.
    func json(id: JobID) -> JSON {
        var object = JSONObject([.init(name: "id", value: .string(id.rawValue))])
        for name in Self.order {
            guard let value = fields[name], !value.isEmpty else { continue }
            if Self.numbers.contains(name) {
                object[name] = Int(value).map { .integer($0) } ?? .string(value)
            } else if name == "usage" {
                object[name] = try? JSON(parsing: value, maximumDepth: 4)
            } else {
                object[name] = .string(value)
            }
        }
        return .object(object)
    }
}
