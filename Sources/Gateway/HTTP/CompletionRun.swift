import Contract
import HTTPTypes
import Hummingbird
import JobQueue
import Logging
import NIOConcurrencyHelpers
import NIOCore
import RedisClient

/// A job that lives for one HTTP request: whoever asked leaves, and it is interrupted.
///
/// The interrupt does not wait for the task that writes the response: that one may hang in a full socket, or never be started because the
/// client left before the head was written.
final class CompletionRun: Sendable {
    private struct State {
        var following: Following?
        var isSubmitted = false
        /// Ended by its terminal event, or given up.
        var isOver = false
        /// Given up before Redis had the job.
        var isAbandoned = false
        /// Counted among the tenant's running requests.
        var isCounted = false
    }

    let id: JobID
    let inbox: EventInbox
    private let owner: String
    private let context: GatewayContext
    private let channel: any Channel
    private let beats: RepeatedTask
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
        beats = channel.eventLoop.scheduleRepeatedTask(initialDelay: period, delay: period) { _ in inbox.beat() }
    }

    /// Follows the job and submits it.
    /// - Throws: 429 when the queue is full or the tenant has as many requests running as it may, 503 when Redis is out of reach; then it
    /// is over.
    func start(_ job: Job) async throws(HTTPFailure) {
        guard context.tenants.admit(owner) else {
            finish()
            throw HTTPFailure.tooManyRunning
        }
        state.withLockedValue { $0.isCounted = true }
        context.completions.insert(id)
        ClientPresence.watch(channel) { [self] in
            inbox.clientGone()
            abandon()
        }
        do {
            keep(await context.feed.follow(new: id) { [inbox] in inbox.deliver($0) })
            guard !state.withLockedValue({ $0.isOver }) else {
                context.completions.remove(id)
                return
            }
            var options = SubmitOptions()
            options.gateway = context.settings.name
            // Should this gateway die, whoever finds that out interrupts the job.
            options.endsWithGateway = true
            switch try await context.queue.submitSurely(job, options: options, patience: .seconds(0), errands: context.errands) {
            case .accepted, .exists, .repeated, .conflict, .sessionLost, .sessionUnsaved: break
            case .full:
                finish()
                throw HTTPFailure.queueFull
            case .ownerFull:
                finish()
                throw HTTPFailure.tooManyWaiting
            }
        } catch let error as RedisError {
            finish()
            throw HTTPFailure.redis(error)
        } catch let failure as HTTPFailure {
            throw failure
        } catch {
            throw HTTPFailure(.badGateway, code: "internal", "the job could not be submitted")
        }
        context.tellSubmitted(job)
        if markSubmitted() { interrupt() }
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

    /// The terminal event was seen, or the job never came to be.
    func finish() {
        close(abandoning: false)
        guard context.completions.remove(id) else { return }
        context.errands.start { [id, context] in
            await Patience.seconds(600).until { () async throws(RedisError) in
                try await context.queue.forgetRequest(id, of: context.settings.name)
            }
        }
    }

    /// Nobody will read the rest: interrupts the job, unless it is over.
    func abandon() {
        if close(abandoning: true) { interrupt() }
    }

    /// - Returns: whether there is a job to be interrupted.
    @discardableResult
    private func close(abandoning: Bool) -> Bool {
        let (following, mustInterrupt, wasOver, wasCounted) = state.withLockedValue { state in
            defer {
                if !state.isOver { state.isAbandoned = abandoning }
                state.isOver = true
                state.following = nil
                state.isCounted = false
            }
            return (state.following, abandoning && !state.isOver && state.isSubmitted, state.isOver, state.isCounted)
        }
        if wasCounted { context.tenants.remove(owner) }
        if let following { context.feed.stop(following) }
        if !wasOver {
            beats.cancel()
            ClientPresence.unwatch(channel)
        }
        return mustInterrupt
    }

    private func keep(_ following: Following) {
        let isOver = state.withLockedValue { state in
            if !state.isOver { state.following = following }
            return state.isOver
        }
        if isOver { context.feed.stop(following) }
    }

    /// - Returns: whether the client left while the job was on its way to Redis.
    @discardableResult
    private func markSubmitted() -> Bool {
        state.withLockedValue { state in
            state.isSubmitted = true
            return state.isAbandoned
        }
    }

    private func interrupt() {
        context.errands.start { [id, owner, context] in
            let answer = await Patience.seconds(600).until { () async throws(RedisError) in
                let answer = try await context.queue.interrupt(id, reason: InterruptReason.clientGone, owner: owner)
                try await context.queue.forgetRequest(id, of: context.settings.name)
                return answer
            }
            context.completions.remove(id)
            GatewayMetrics.interrupted(answer)
        }
    }
}
