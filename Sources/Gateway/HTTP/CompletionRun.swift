import Contract
import HTTPTypes
import Hummingbird
import JobQueue
import Logging
import NIOConcurrencyHelpers
import NIOCore

/// The job of one `POST /v1/chat/completions` request. It is interrupted when the client disconnects. Thread-safe.
///
/// The interrupt does not wait for the task that writes the response: that task can be blocked on a full socket, or never start because
/// the client disconnected before the response head was written.
final class CompletionRun: Sendable {
    private enum Phase {
        /// Redis has not answered the submission. Next: `running`, `abandoned`, `over`.
        case submitting
        /// Redis has the job. Next: `over`.
        case running
        /// Abandoned while the job was being submitted; the job is interrupted when the reply arrives. Next: `over`.
        case abandoned
        /// Ended by the terminal event, a failed submission or `abandon()`. Final.
        case over
    }

    private struct State {
        var phase = Phase.submitting
        var following: Following?
        /// Whether the run is counted among the tenant's running requests.
        var isCounted = false

        /// Whether nothing is delivered any more.
        var isOver: Bool { phase == .abandoned || phase == .over }

        /// Ends the run.
        /// - Returns: whether there is a submitted job to interrupt.
        mutating func end(abandoning: Bool) -> Bool {
            switch phase {
            case .submitting: phase = abandoning ? .abandoned : .over
            case .running:
                phase = .over
                return abandoning
            case .abandoned, .over: break
            }
            return false
        }

        /// Redis has answered the submission.
        /// - Returns: whether the run was abandoned meanwhile, so that its job must be interrupted.
        mutating func submitted() -> Bool {
            defer { phase = phase == .submitting ? .running : .over }
            return phase == .abandoned
        }
    }

    /// Also the id in the response's `x-sluice-job` header.
    let id: JobID
    /// The job's events for the task that writes the response.
    let inbox: EventInbox
    private let owner: String
    private let context: GatewayContext
    private let channel: any Channel
    var eventLoop: any EventLoop { channel.eventLoop }
    private let heartbeats: RepeatedTask
    private let state = NIOLockedValueBox(State())

    init(id: JobID, owner: String, context: GatewayContext, channel: any Channel) {
        self.id = id
        self.owner = owner
        self.context = context
        self.channel = channel
        let inbox = EventInbox(maximumSize: context.settings.outgoingMaximum, tenant: context.unsent.tenant(owner)) {
            GatewayMetrics.cut(channel)
        }
        self.inbox = inbox
        let period = ServerSentEvents.heartbeat
        heartbeats = channel.eventLoop.scheduleRepeatedTask(initialDelay: period, delay: period) { _ in inbox.beat() }
    }

    /// Subscribes to the job's events and then submits the job.
    /// - Parameter idempotency: the client's idempotency key and the digest of the request's body; nil: none.
    /// - Returns: the earlier job with the same idempotency key and body, which runs instead of this one; nil: this one runs. The run is over
    ///   when there is an earlier job.
    /// - Throws: 409 for a key that was used with another body, 429 when the queue is full or the tenant has reached its limit of running
    ///   requests, 503 when Redis is unreachable. The run is over then.
    func start(_ job: Job, idempotency: (key: String, digest: String)? = nil) async throws(HTTPErrorResponse) -> JobID? {
        guard context.tenants.admit(owner) else {
            finish()
            throw HTTPErrorResponse.tooManyRunning
        }
        state.withLockedValue { $0.isCounted = true }
        context.completions.insert(id)
        ClientPresence.watch(channel) { [self] in
            inbox.clientGone()
            abandon()
        }
        do {
            keep(await context.feed.follow(new: id, pace: { [inbox] in inbox.whenTaken($0) }) { [inbox] in inbox.deliver($0) })
            guard !state.withLockedValue({ $0.isOver }) else {
                context.completions.remove(id)
                return nil
            }
            var options = SubmitOptions()
            options.gateway = context.settings.name
            // If this gateway crashes, the node that detects the crash interrupts the job.
            options.endsWithGateway = true
            options.idempotency = idempotency
            switch try await context.submit(job, options: options, repeating: .seconds(0)) {
            case .accepted, .exists, .sessionLost, .sessionUnsaved: break
            case .repeated(let earlier):
                guard earlier != id else { break }
                finish()
                return earlier
            case .conflict:
                finish()
                throw HTTPErrorResponse.keyConflict
            case .full:
                finish()
                throw HTTPErrorResponse.queueFull
            case .ownerFull:
                finish()
                throw HTTPErrorResponse.tooManyWaiting
            case .quotaExhausted:
                finish()
                throw HTTPErrorResponse.quotaExhausted
            }
        } catch is QueueError {
            finish()
            throw HTTPErrorResponse.queueUnreachable
        } catch let failure as HTTPErrorResponse {
            throw failure
        } catch {
            throw HTTPErrorResponse(.badGateway, code: "internal", "submitting the job failed; retry the request")
        }
        context.logSubmitted(job)
        if state.withLockedValue({ $0.submitted() }) { interrupt() }
        return nil
    }

    /// Follows the job of an earlier request from its first event. The client's leaving does not interrupt it.
    /// - Throws: 409 when the job's answer is no longer stored, 429 and 503 as `start`. The run is over then.
    func attach() async throws(HTTPErrorResponse) {
        guard context.tenants.admit(owner) else {
            finish()
            throw HTTPErrorResponse.tooManyRunning
        }
        state.withLockedValue { $0.isCounted = true }
        ClientPresence.watch(channel) { [self] in
            inbox.clientGone()
            abandon()
        }
        do {
            guard try await context.queue.record(id) != nil else {
                finish()
                throw HTTPErrorResponse.keyExpired
            }
            keep(try await context.feed.follow(id, after: nil, pace: { [inbox] in inbox.whenTaken($0) }) { [inbox] in inbox.deliver($0) })
        } catch let failure as HTTPErrorResponse {
            throw failure
        } catch {
            finish()
            throw HTTPErrorResponse.queueUnreachable
        }
    }

    /// A whole completion, which counts as unsent until the client has taken it. The connection is cut when the tenant leaves too much
    /// unread.
    func responseBody(_ body: ByteBuffer) -> ResponseBody {
        ResponseBody(contentLength: body.readableBytes) { [tenant = context.unsent.tenant(owner), channel] writer in
            let fits = tenant.change(by: body.readableBytes)
            defer { _ = tenant.change(by: -body.readableBytes) }
            guard fits else {
                GatewayMetrics.cut(channel)
                throw ChannelError.outputClosed
            }
            try await writer.write(body)
            try await writer.finish(nil)
        }
    }

    /// Ends the run after its terminal event or a failed submission: releases its resources and removes it from the gateway's requests in
    /// Redis.
    func finish() {
        close(abandoning: false)
        guard context.completions.remove(id) else { return }
        context.backgroundTasks.start { [id, context] in
            await RetryPolicy.seconds(600).run { () async throws(QueueError) in
                try await context.queue.forgetRequest(id, of: context.settings.name)
            }
        }
    }

    /// Ends the run because its output can no longer be delivered, and interrupts the job unless it has ended.
    func abandon() {
        if close(abandoning: true) { interrupt() }
    }

    /// Releases the run's resources once; later calls do nothing.
    /// - Returns: whether there is a submitted job to interrupt.
    @discardableResult
    private func close(abandoning: Bool) -> Bool {
        let (following, mustInterrupt, wasOver, wasCounted) = state.withLockedValue { state in
            defer {
                state.following = nil
                state.isCounted = false
            }
            let wasOver = state.isOver
            return (state.following, state.end(abandoning: abandoning), wasOver, state.isCounted)
        }
        if wasCounted { context.tenants.remove(owner) }
        if let following { context.feed.stop(following) }
        if !wasOver {
            heartbeats.cancel()
            ClientPresence.unwatch(channel)
        }
        return mustInterrupt
    }

    /// Stores the subscription, or stops it if the run ended while subscribing.
    private func keep(_ following: Following) {
        let isOver = state.withLockedValue { state in
            if !state.isOver { state.following = following }
            return state.isOver
        }
        if isOver { context.feed.stop(following) }
    }

    /// Sends the interrupt in the background and retries it for up to 10 minutes while Redis is unreachable.
    private func interrupt() {
        context.backgroundTasks.start { [id, owner, context] in
            let answer = await RetryPolicy.seconds(600).run { () async throws(QueueError) in
                let answer = try await context.queue.forceInterrupt(id, reason: InterruptReason.clientGone, owner: owner)
                try await context.queue.forgetRequest(id, of: context.settings.name)
                return answer
            }
            context.completions.remove(id)
            GatewayMetrics.interrupted(answer)
        }
    }
}

/// The ids of the chat completions that this process runs. Other requests that Redis lists under this gateway's name belong to an earlier
/// process. Thread-safe.
package final class CompletionLedger: Sendable {
    private let jobs = NIOLockedValueBox<Set<JobID>>([])

    package init() {}

    func contains(_ id: JobID) -> Bool { jobs.withLockedValue { $0.contains(id) } }

    func insert(_ id: JobID) { jobs.withLockedValue { _ = $0.insert(id) } }

    /// - Returns: whether the id was present.
    @discardableResult
    func remove(_ id: JobID) -> Bool { jobs.withLockedValue { $0.remove(id) != nil } }
}
