import Logging
import Metrics
import NIOCore
import Synchronization

/// The state of a `RedisClient`: waiting commands, commands in flight and the connection. Used only on its event loop, without locks.
final class CommandCore: LinkUser, ConnectionCore {
    typealias Completion = @Sendable (Result<[RESPValue], RedisError>) -> Void

    /// The part of the state that is read from any thread.
    final class Status: Sendable {
        let isConnected = Atomic(false)
    }

    private let settings: RedisSettings
    private let status: Status
    private let url: RedisURL
    private let alarm: Alarm
    /// Time from the call to the last reply, including the wait for a connection. On a connection with blocking commands, such as
    /// `claims`, it includes the wait for work.
    private let latency: Timer
    private var keeper: LinkKeeper?
    private var link: Link?
    private var requests: RequestQueue
    private var onConnect: [@Sendable () -> Void] = []
    private var isStopped = false
    /// Time from which the next command is followed by an ECHO, which verifies that replies match their commands.
    private var nextEcho = NIODeadline.now()
    /// Whether the server's ACL forbids ECHO for this user.
    private var isEchoForbidden = false
    private var echoes = 0

    /// Minimum interval between these ECHO commands.
    private static let echoPeriod = TimeAmount.seconds(1)

    init(url: RedisURL, settings: RedisSettings, eventLoop: any EventLoop, name: String, logger: Logger, status: Status) {
        self.url = url
        self.settings = settings
        self.status = status
        alarm = Alarm(eventLoop: eventLoop)
        latency = Timer(label: "sluice_redis_command_seconds", dimensions: [("connection", name)])
        requests = RequestQueue(
            waitingMaximum: settings.waitingMaximum, inFlightMaximum: settings.inFlightMaximum, bytesMaximum: settings.bytesMaximum)
        keeper = LinkKeeper(url: url, settings: settings, eventLoop: eventLoop, name: name, logger: logger, user: self)
        alarm.ring = { [unowned self] now in alarmRang(now) }
    }

    /// Starts connecting; `waiter` resumes when the client stops.
    func run(_ waiter: CheckedContinuation<Void, Never>) { keeper?.run(waiter) }

    /// Closes the connection and fails all commands with `.shutdown`.
    func stop() {
        guard !isStopped else { return }
        isStopped = true
        alarm.cancel()
        keeper?.stop()
        for request in requests.takeAll() { request.completion(.failure(RedisError(.shutdown, "the Redis client is shut down"))) }
        onConnect = []
    }

    func add(onConnect body: @escaping @Sendable () -> Void) { onConnect.append(body) }

    /// Sends the commands, or queues them until there is a connection. `completion` runs on the event loop, exactly once.
    func send(_ pipeline: RedisPipeline, deadline: NIODeadline, completion: @escaping Completion) {
        guard !isStopped else { return completion(.failure(RedisError(.shutdown, "the Redis client is shut down"))) }
        guard pipeline.count > 0 else { return completion(.success([])) }
        guard pipeline.argumentsMissing == 0 else {
            // Redis would read the following command as the missing arguments.
            return completion(.failure(RedisError(.protocolViolation, "a command has fewer or more arguments than declared")))
        }
        let request = RequestQueue.Request(
            count: pipeline.count, bytes: pipeline.buffer.readableBytes, deadline: deadline, begun: .now(), completion: completion)
        if let link {
            guard requests.addInFlight(request) else {
                return completion(
                    .failure(
                        RedisError(
                            .overloaded,
                            "too many unanswered commands to \(url): the limit is \(settings.inFlightMaximum) commands or "
                                + "\(settings.bytesMaximum) bytes")))
            }
            link.write(pipeline.buffer)
            echo(link, after: request)
        } else {
            guard requests.addWaiting(request, pipeline.buffer) else {
                return completion(
                    .failure(
                        RedisError(
                            .overloaded,
                            "no connection to \(url) and too many waiting commands: the limit is \(settings.waitingMaximum) commands or "
                                + "\(settings.bytesMaximum) bytes")))
            }
        }
        alarm.set(deadline)
    }

    /// Sends an ECHO with a unique mark after a command, at most once per `echoPeriod`.
    ///
    /// After a lost or duplicated reply every later reply would be matched with the wrong command, unnoticed while commands are always in
    /// flight.
    private func echo(_ link: Link, after request: RequestQueue.Request) {
        guard nextEcho <= request.begun, !isEchoForbidden else { return }
        nextEcho = request.begun + Self.echoPeriod
        echoes &+= 1
        let mark = "sluice-\(echoes)"
        var pipeline = RedisPipeline()
        pipeline.append("ECHO", .string(mark))
        var echo = RequestQueue.Request(
            count: 1, bytes: pipeline.buffer.readableBytes, deadline: request.deadline + settings.silence, begun: request.begun
        ) { _ in }
        echo.mark = mark
        if requests.addInFlight(echo) { link.write(pipeline.buffer) }
    }

    /// Ends the connection unless the reply is the expected mark.
    private func check(_ reply: RESPValue?, isEcho mark: String, _ link: Link) {
        switch reply {
        case .bulk(let buffer)? where buffer.readableBytesView.elementsEqual(mark.utf8): break
        case .error(let text)? where text.hasPrefix("NOPERM"): isEchoForbidden = true
        default: link.end(RedisError(.protocolViolation, "replies from Redis do not match the commands"))
        }
    }

    /// Ends the connection after a reply that does not match its command, because the replies after it may not match theirs either.
    func distrust(_ reason: RedisError) { link?.end(reason) }

    // MARK: The connection

    var replyMaximum: Int { settings.replyMaximum }

    func linkUp(_ link: Link) {
        self.link = link
        nextEcho = .now() + Self.echoPeriod
        isEchoForbidden = false
        link.use(ReplyBuilder { [unowned self] reply in received(reply) })
        for buffer in requests.sendWaiting() { link.write(buffer) }
        alarm.set(.now() + settings.silence)
        status.isConnected.store(true, ordering: .releasing)
        for body in onConnect { body() }
    }

    func linkLost(_ reason: RedisError) {
        link = nil
        status.isConnected.store(false, ordering: .releasing)
        let lost = RedisError(
            .connectionLost, "the connection to \(url) was lost (\(reason)); it is unknown whether the command was executed")
        let now = NIODeadline.now()
        for (index, request) in requests.takeInFlight().enumerated() {
            switch reason.code {
            case .shutdown: request.completion(.failure(RedisError(.shutdown, "the Redis client is shut down")))
            case .timeout where request.deadline <= now:
                request.completion(.failure(RedisError(.timeout, "no reply from \(url) within the command's deadline")))
            case .protocolViolation where index == 0: request.completion(.failure(reason))
            default: request.completion(.failure(lost))
            }
        }
    }

    private func received(_ reply: RESPValue) {
        guard let link else { return }
        if case .error(let text) = reply, text.hasPrefix("READONLY") {
            // The server was demoted to a replica. A new connection may reach the new master.
            link.endAfterReading(RedisError(.unavailable, "the server is now a replica (\(text))"))
        }
        switch requests.received(reply) {
        case .more: break
        case .complete(let request, let replies):
            if let mark = request.mark { return check(replies.first, isEcho: mark, link) }
            latency.recordNanoseconds((.now() - request.begun).nanoseconds)
            request.completion(.success(replies))
        case .unasked: link.end(RedisError(.protocolViolation, "Redis sent a reply without a command"))
        }
    }

    // MARK: Deadlines

    private func alarmRang(_ now: NIODeadline) {
        for request in requests.takeExpiredWaiting(now) {
            request.completion(.failure(RedisError(.unavailable, "no connection to \(url) within the command's deadline")))
        }
        if let link, requests.hasExpiredInFlight(now) {
            link.end(RedisError(.timeout, "no reply to a command within its deadline"))
        }
        if let link {
            if requests.isEmptyInFlight, link.heard + settings.silence <= now { ping(link, now) }
            alarm.set(max(link.heard, requests.isEmptyInFlight ? link.heard : now) + settings.silence)
        }
        if let deadline = requests.earliestDeadline { alarm.set(deadline) }
    }

    private func ping(_ link: Link, _ now: NIODeadline) {
        var pipeline = RedisPipeline()
        pipeline.append("PING")
        let request = RequestQueue.Request(
            count: 1, bytes: pipeline.buffer.readableBytes, deadline: now + min(settings.silence, settings.commandTimeout), begun: now
        ) { _ in }
        if requests.addInFlight(request) { link.write(pipeline.buffer) }
    }
}
