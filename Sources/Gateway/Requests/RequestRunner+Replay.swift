import Contract
import JobQueue
import Logging
import NIOCore
import RedisClient

/// Reading requests again from their jobs' logs, page by page, no faster than the client reads.
extension SessionHost {
    /// Bytes of a log that one replay holds at a time.
    private static let replayPage = 32 << 10
    private static let replayPatience = Patience.seconds(600)

    /// Reads a request from the beginning, so that the whole answer is known, then goes on live; tries until Redis answers.
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
                guard let isThere = await Self.replayPatience.until({ () async throws(RedisError) in try await queue.record(id) != nil })
                else { return (nil, true) }
                guard isThere else { return (nil, false) }
                after = await Self.catchUp(bound, generation, queue)
                guard bound.value.isWanted(generation) else { return (nil, true) }
            }
            let following = await Self.replayPatience.until { [after] () async throws(RedisError) in
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
            // Its gateway died before the job was submitted, or the job ended so long ago that its record is gone.
            if !answer.isThere {
                subject.host.refuse(subject, ProtocolError(.internalError, "the request was lost", detail: "internal", retryable: true))
            }
        }
    }

    /// Relays what the log holds up to its end, or until the replay is not wanted any more.
    /// - Returns: the last event; nil: there was none.
    private static func catchUp(_ bound: NIOLoopBound<Subject>, _ generation: Int, _ queue: JobQueue) async -> EventID? {
        let id = bound.value.request.jobID
        var (after, cursor): (EventID?, String?) = (nil, nil)
        while true {
            let socket = bound.value.request.isMuted ? nil : bound.value.session.socket
            await beginRead(NIOLoopBound((socket, bound.value.session.account), eventLoop: bound.value.host.eventLoop))
            defer { bound.value.session.account.endRead() }
            guard bound.value.isWanted(generation) else { return after }
            let page = await replayPatience.until { [cursor] () async throws(RedisError) in
                try await queue.logPage(id, after: cursor, size: replayPage)
            }
            guard let page else { return after }
            bound.value.host.receive(page.events, bound.value, generation)
            if let last = page.events.last { after = last.id }
            guard !page.isLast, let end = page.end else { return after }
            cursor = end
        }
    }

    /// Waits until the client has read what was sent, and the session's account may read another page.
    private static func beginRead(_ bound: NIOLoopBound<(socket: AgentSocket?, account: TrafficAccount)>) async {
        if bound.value.socket != nil {
            await withCheckedContinuation { continuation in bound.value.socket?.whenRead { continuation.resume() } }
        }
        await withCheckedContinuation { continuation in bound.value.account.beginRead { continuation.resume() } }
        while bound.value.account.debt > 0 {
            // Cancelled: the gateway ends.
            do { try await Task.sleep(for: .milliseconds(bound.value.account.debt)) } catch { break }
        }
        bound.value.account.charge(replayPage)
    }

    private enum ReplayEnd: Sendable {
        case whole
        /// Its socket is gone.
        case abandoned
        case failed(ProtocolError)
    }

    /// An ended request as it is sent again.
    private final class EndedReplay {
        let session: Session
        let socket: AgentSocket
        var machine: RelayMachine
        private var held = 0

        init(_ session: Session, _ socket: AgentSocket, _ machine: RelayMachine) {
            self.session = session
            self.socket = socket
            self.machine = machine
        }

        var isWanted: Bool { session.socket === socket }

        /// - Returns: false when the tenant holds too much: the machine remembers the answer.
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

    /// An ended request is replayed from its log, as long as that is kept.
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

    private static func send(_ bound: NIOLoopBound<EndedReplay>, of id: JobID, _ queue: JobQueue) async -> ReplayEnd {
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
                return .failed(ProtocolError(.sessionInvalid, "the request is not kept any more"))
            }
            cursor = end
        }
    }
}

extension SessionHost.Subject {
    /// The request runs on, and no RESUME came since.
    fileprivate func isWanted(_ generation: Int) -> Bool {
        request.generation == generation && !session.isOver && session.running.contains { $0 === request }
    }
}
