import Contract
import JobQueue
import Logging
import NIOCore
import RedisClient
import Support

/// Replay of requests from the event logs of their jobs: page by page, at most as fast as the client reads.
extension SessionRegistry {
    /// Maximum bytes of a log that one replay holds.
    private static let replayPage = 32 << 10
    private static let replayPatience = RetryPolicy.seconds(600)

    /// Replays a running request from its first event, so that the answer is complete, and then follows it live. Retries for 10 minutes while
    /// Redis is unreachable.
    func replay(_ request: RunningRequest, in session: Session) {
        let old = request.following
        request.following = nil
        let subject = Subject(host: self, session: session, request: request)
        let (bound, receive) = (NIOLoopBound(subject, eventLoop: eventLoop), receiver(subject))
        let generation = request.generation
        let (feed, queue, id) = (context.feed, context.queue, request.jobID)
        let isSubmitting = request.phase == .submitting
        session.replays += 1
        context.await({ () -> (following: Following?, isThere: Bool) in
            var after: EventID?
            if !isSubmitting {
                guard let isThere = await Self.replayPatience.run({ () async throws(RedisError) in try await queue.record(id) != nil })
                else { return (nil, true) }
                guard isThere else { return (nil, false) }
                after = await Self.catchUp(bound, generation, queue)
                guard bound.value.isWanted(generation) else { return (nil, true) }
            }
            let following = await Self.replayPatience.run { [after] () async throws(RedisError) in
                try await feed.follow(id, after: after, receive: receive)
            }
            return (following, true)
        }) { answer in
            session.replays -= 1
            if let old { subject.host.context.feed.stop(old) }
            guard subject.isWanted(generation) else {
                if let following = answer.following { subject.host.context.feed.stop(following) }
                return
            }
            request.following = answer.following
            // The previous gateway died before it submitted the job, or the job's record has expired.
            if !answer.isThere {
                subject.host.refuse(subject, ProtocolError(.internalError, "the request was lost", detail: "internal", retryable: true))
            }
        }
    }

    /// Relays the events of the log up to its end, or until the replay becomes obsolete.
    /// - Returns: the id of the last event; nil when there was none.
    private static func catchUp(_ bound: NIOLoopBound<Subject>, _ generation: Int, _ queue: JobProducer) async -> EventID? {
        let id = bound.value.request.jobID
        var (after, cursor): (EventID?, String?) = (nil, nil)
        while true {
            let socket = bound.value.request.isMuted ? nil : bound.value.session.socket
            await beginRead(NIOLoopBound((socket, bound.value.session.account), eventLoop: bound.value.host.eventLoop))
            defer { bound.value.session.account.endRead() }
            guard bound.value.isWanted(generation) else { return after }
            let page = await replayPatience.run { [cursor] () async throws(RedisError) in
                try await queue.logPage(id, after: cursor, size: replayPage)
            }
            guard let page else { return after }
            bound.value.host.receive(page.events, bound.value, generation)
            if let last = page.events.last { after = last.id }
            guard !page.isLast, let end = page.end else { return after }
            cursor = end
        }
    }

    /// Waits until the client has read the previous output and the session's account allows another page.
    private static func beginRead(_ bound: NIOLoopBound<(socket: ClientSocket?, account: TrafficAccount)>) async {
        if bound.value.socket != nil {
            await withCheckedContinuation { continuation in bound.value.socket?.whenRead { continuation.resume() } }
        }
        await withCheckedContinuation { continuation in bound.value.account.beginRead { continuation.resume() } }
        while bound.value.account.debt > 0 {
            // Cancelled because the gateway shuts down.
            do { try await Task.sleep(for: .milliseconds(bound.value.account.debt)) } catch { break }
        }
        bound.value.account.charge(replayPage)
    }

    private enum ReplayEnd: Sendable {
        case whole
        /// The socket is closed or replaced.
        case abandoned
        case failed(ProtocolError)
    }

    /// State of the replay of an ended request.
    private final class EndedReplay {
        let session: Session
        let socket: ClientSocket
        var machine: RelayMachine
        private var held = 0

        init(_ session: Session, _ socket: ClientSocket, _ machine: RelayMachine) {
            self.session = session
            self.socket = socket
            self.machine = machine
        }

        var isWanted: Bool { session.socket === socket }

        /// - Returns: false when the tenant's limit of held bytes is exceeded; the machine keeps the whole answer.
        func relay(_ events: [LoggedEvent]) -> Bool {
            machine.receive(events, milliseconds: WallClock.milliseconds) { [socket] in socket.send($0) }
            let more = machine.answer.utf8.count - held
            guard more <= 0 || session.account.hasRoom(for: more) else { return false }
            session.account.hold(more)
            held += more
            return true
        }

        func end() { session.account.release(held) }
    }

    /// Replays an ended request from its event log, unless the log has expired.
    func replay(_ ended: EndedRequest, after: EventID?, in session: Session) {
        guard let socket = session.socket else { return }
        let machine = RelayMachine(
            requestID: ended.id, jobID: ended.jobID, sessionID: session.id, wantsReasoning: session.settings.wantsReasoning,
            speaks: session.settings.requiresSpeech, known: after)
        let bound = NIOLoopBound(EndedReplay(session, socket, machine), eventLoop: eventLoop)
        let (queue, id, logger) = (context.queue, ended.jobID, context.logger)
        session.replays += 1
        context.await({ await Self.send(bound, of: id, queue) }) { end in
            session.replays -= 1
            bound.value.end()
            switch end {
            case .whole: logger.debug("ended request replayed", metadata: ["job": "\(id)"])
            case .abandoned: break
            case .failed(var error):
                error.requestID = ended.id
                socket.send(error)
            }
        }
    }

    private static func send(_ bound: NIOLoopBound<EndedReplay>, of id: JobID, _ queue: JobProducer) async -> ReplayEnd {
        var cursor: String?
        while true {
            let (socket, account) = (bound.value.socket, bound.value.session.account)
            await beginRead(NIOLoopBound((socket, account), eventLoop: socket.eventLoop))
            defer { account.endRead() }
            guard bound.value.isWanted else { return .abandoned }
            let page: LogPage
            do { page = try await queue.logPage(id, after: cursor, size: replayPage) } catch { return .failed(busy) }
            guard bound.value.isWanted else { return .abandoned }
            guard bound.value.relay(page.events) else {
                return .failed(ProtocolError(.rateLimited, "too many bytes of your requests are in memory", retryable: true))
            }
            if bound.value.machine.ending != nil { return .whole }
            guard !page.isLast, let end = page.end else {
                return .failed(ProtocolError(.sessionInvalid, "the request's event log has expired"))
            }
            cursor = end
        }
    }
}

extension SessionRegistry.Subject {
    /// Whether the request is still running and no later RESUME replaced this replay.
    fileprivate func isWanted(_ generation: Int) -> Bool {
        request.generation == generation && !session.isOver && session.running.contains { $0 === request }
    }
}
