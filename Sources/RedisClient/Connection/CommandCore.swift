import Logging
import Metrics
import NIOCore
import Support
import Synchronization

/// The state of a `RedisClient`: waiting commands, commands in flight and the connection. Used only on its event loop, without locks.
final class CommandCore: LinkUser, ConnectionCore {
    typealias Completion = @Sendable (Result<[RESPValue], RedisError>) -> Void

    /// The part of the state that is read from any thread.
    final class Status: Sendable {
        let isConnected = Atomic(false)
        let connections = Atomic(0)
        /// The server of the last connection; nil for a Unix socket.
        let server = Mutex<ServerAddress?>(nil)
    }

    private let settings: RedisSettings
    private let status: Status
    private let url: RedisURL
    private let alarm: Alarm
    private let checks: CheckTimes
    /// Time from the call to the last reply, including the wait for a connection. On a connection with blocking commands, such as
    /// `claims`, it includes the wait for work.
    private let latency: Timer
    private var keeper: LinkKeeper?
    private var link: Link?
    private var requests: RequestQueue
    private var onConnect: [@Sendable () -> Void] = []
    /// Commands that are sent first on each connection; their replies are ignored.
    private var greeting = RedisPipeline()
    /// Called after each connect (true) and each loss (false).
    private var onChange: ((Bool) -> Void)?
    private var isStopped = false
    /// Whether the caller decides what becomes of commands that were not executed, because another node may have to execute them.
    private let isRouted: Bool
    /// Why the current connection receives no further commands: the server cannot execute any. It is closed after the last outstanding
    /// reply, so that the fate of every command in flight is known.
    private var retirement: RedisError?
    private var isRetryScheduled = false
    /// Time from which the next command is followed by an ECHO, which verifies that replies match their commands.
    private var nextEcho = NIODeadline.now()
    /// Whether the server's ACL forbids ECHO for this user.
    private var isEchoForbidden = false
    private var echoes = 0

    /// Minimum interval between these ECHO commands.
    private static let echoPeriod = TimeAmount.seconds(1)
    /// Interval before commands that Redis did not execute are sent again on the same connection; doubles from the lower to the upper bound.
    private static let retryInterval = (from: Duration.milliseconds(20), to: Duration.milliseconds(500))

    /// - Parameters:
    ///   - isRouted: passes replies such as MOVED and LOADING on as results, instead of sending the command again.
    ///   - onChange: called after each connect (true) and each loss (false).
    init(
        url: RedisURL, settings: RedisSettings, eventLoop: any EventLoop, name: String, logger: Logger, status: Status,
        isRouted: Bool = false,
        onChange: ((Bool) -> Void)? = nil
    ) {
        self.url = url
        self.isRouted = isRouted
        self.onChange = onChange
        self.settings = settings
        self.status = status
        alarm = Alarm(eventLoop: eventLoop)
        checks = CheckTimes(silence: settings.silence)
        latency = Timer(label: "sluice_redis_command_seconds", dimensions: [("connection", name)])
        requests = RequestQueue(
            waitingMaximum: settings.waitingMaximum, inFlightMaximum: settings.inFlightMaximum, bytesMaximum: settings.bytesMaximum)
        keeper = LinkKeeper(url: url, settings: settings, eventLoop: eventLoop, name: name, logger: logger, user: self)
        alarm.ring = { [unowned self] now in alarmRang(now) }
    }

    /// Starts connecting; `waiter` resumes when the client stops.
    func run(_ waiter: CheckedContinuation<Void, Never>) { keeper?.run(waiter) }

    /// Starts connecting, without a waiter.
    func start() { keeper?.start() }

    /// Closes the connection and fails all commands with `.shutdown`.
    func stop() {
        guard !isStopped else { return }
        isStopped = true
        onChange = nil
        alarm.cancel()
        keeper?.stop()
        for request in requests.takeAll() { request.completion(.failure(RedisError(.shutdown, "the Redis client is shut down"))) }
        onConnect = []
    }

    func add(onConnect body: @escaping @Sendable () -> Void) { onConnect.append(body) }

    /// Adds commands that are sent first on each later connection. Their replies are ignored.
    func greet(with commands: RedisPipeline) { greeting.append(contentsOf: commands) }

    /// Whether no command is waiting or in flight.
    var isIdle: Bool { requests.isEmpty }

    /// Fails the commands that wait for a connection with `.unavailable`, so that the caller can send them elsewhere.
    func releaseWaiting() {
        for request in requests.takeWaiting() {
            request.completion(.failure(RedisError(.unavailable, "\(url) may no longer serve the slot; the command was not sent")))
        }
    }

    /// Sends the commands, or queues them until there is a connection. `completion` runs on the event loop, exactly once.
    /// - Parameter connection: the number of the only connection on which to send them; nil for any.
    func send(_ pipeline: RedisPipeline, deadline: NIODeadline, connection: Int? = nil, completion: @escaping Completion) {
        guard !isStopped else { return completion(.failure(RedisError(.shutdown, "the Redis client is shut down"))) }
        guard pipeline.count > 0 else { return completion(.success([])) }
        guard pipeline.argumentsMissing == 0 else {
            // Redis would read the following command as the missing arguments.
            return completion(.failure(RedisError(.protocolViolation, "a command has fewer or more arguments than declared")))
        }
        var request = RequestQueue.Request(
            count: pipeline.count, bytes: pipeline.bytes.count, deadline: deadline, begun: .now(), completion: completion)
        if let connection {
            guard link != nil, retirement == nil, status.connections.load(ordering: .relaxed) == connection else {
                return completion(.failure(RedisError(.connectionLost, "the connection to \(url) has changed; the commands were not sent")))
            }
        } else {
            request.commands = pipeline.bytes
        }
        if let link, retirement == nil {
            guard requests.addInFlight(request) else {
                return completion(
                    .failure(
                        RedisError(
                            .overloaded,
                            "too many unanswered commands to \(url): the limit is \(settings.inFlightMaximum) commands or "
                                + "\(settings.bytesMaximum) bytes")))
            }
            link.write(pipeline.bytes)
            echo(link, after: request)
        } else {
            guard requests.addWaiting(request, pipeline.bytes) else {
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
            count: 1, bytes: pipeline.bytes.count, deadline: request.deadline + settings.silence, begun: request.begun
        ) { _ in }
        echo.mark = mark
        if requests.addInFlight(echo) { link.write(pipeline.bytes) }
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
        retirement = nil
        nextEcho = .now() + Self.echoPeriod
        isEchoForbidden = false
        link.use(ReplyBuilder { [unowned self] reply in received(reply) })
        sendGreeting(link)
        for commands in requests.sendWaiting() { link.write(commands) }
        alarm.set(checks.next(after: .now()))
        let server = keeper?.server
        status.server.withLock { $0 = server }
        status.connections.wrappingAdd(1, ordering: .relaxed)
        status.isConnected.store(true, ordering: .releasing)
        for body in onConnect { body() }
        onChange?(true)
    }

    private func sendGreeting(_ link: Link) {
        guard greeting.count > 0 else { return }
        let request = RequestQueue.Request(
            count: greeting.count, bytes: greeting.bytes.count, deadline: .now() + settings.commandTimeout, begun: .now()
        ) { _ in }
        if requests.addInFlight(request) { link.write(greeting.bytes) }
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
        onChange?(false)
    }

    private func received(_ reply: RESPValue) {
        guard let link else { return }
        switch requests.received(reply) {
        case .more: break
        case .complete(let request, let replies):
            if let mark = request.mark {
                check(replies.first, isEcho: mark, link)
            } else if !sendAgain(request, replies) {
                latency.recordNanoseconds((.now() - request.begun).nanoseconds)
                request.completion(.success(replies))
            }
            if let retirement, requests.isEmptyInFlight { link.end(retirement) }
        case .unasked: link.end(RedisError(.protocolViolation, "Redis sent a reply without a command"))
        }
    }

    // MARK: Commands that were not executed

    /// Arranges that a request is sent again, if no command of it was executed and its deadline has not passed. A pipeline that was executed
    /// in part is not repeated.
    /// - Returns: false when the replies are the result of the request.
    private func sendAgain(_ request: RequestQueue.Request, _ replies: [RESPValue]) -> Bool {
        var reasons: [UnexecutedReply] = []
        for reply in replies {
            guard let reason = UnexecutedReply(reply) else { continue }
            reasons.append(reason)
        }
        guard let reason = reasons.first, !isRouted else { return false }
        if reasons.contains(where: \.needsNewConnection) {
            // The server was demoted to a replica or is loading. A new connection may reach the new primary.
            retirement = retirement ?? RedisError(.unavailable, "the server executes no commands (\(reason.text))")
        }
        guard reasons.count == replies.count, let commands = request.commands else { return false }
        var request = request
        request.refusal = reason.text
        request.refusals += 1
        guard request.deadline > .now() else {
            request.completion(.failure(notExecuted(request)))
            return true
        }
        requests.addAgain(request, commands)
        alarm.set(request.deadline)
        if retirement == nil { scheduleRetry(attempt: request.refusals - 1) }
        return true
    }

    /// Sends the waiting requests after a jittered interval, unless the connection is lost meanwhile: a new one sends them at once.
    private func scheduleRetry(attempt: Int) {
        guard !isRetryScheduled else { return }
        isRetryScheduled = true
        let bound = Backoff.bound(from: Self.retryInterval.from, to: Self.retryInterval.to, attempt: attempt)
        alarm.eventLoop.assumeIsolated().scheduleTask(in: TimeAmount(bound * Double.random(in: 0.5...1))) { [weak self] in
            self?.retry()
        }
    }

    private func retry() {
        isRetryScheduled = false
        guard let link, retirement == nil else { return }
        for commands in requests.sendWaiting() { link.write(commands) }
    }

    /// The error of a waiting request whose deadline has passed.
    private func notExecuted(_ request: RequestQueue.Request) -> RedisError {
        guard let refusal = request.refusal else {
            return RedisError(.unavailable, "no connection to \(url) within the command's deadline")
        }
        return RedisError(.unavailable, "not executed by \(url) within the command's deadline: \(refusal)", refusal: refusal)
    }

    // MARK: Deadlines

    private func alarmRang(_ now: NIODeadline) {
        for request in requests.takeExpiredWaiting(now) {
            request.completion(.failure(notExecuted(request)))
        }
        if let link, requests.hasExpiredInFlight(now) {
            link.end(RedisError(.timeout, "no reply to a command within its deadline"))
        }
        if let link {
            if requests.isEmptyInFlight, lastCheck(since: link.lastReceived) <= now { ping(link, now) }
            alarm.set(lastCheck(since: requests.isEmptyInFlight ? link.lastReceived : now))
        }
        if let deadline = requests.earliestDeadline { alarm.set(deadline) }
    }

    /// The last check at which a connection has not yet been silent for longer than `RedisSettings.silence`.
    /// - Parameter lastReceived: when the connection last received data.
    private func lastCheck(since lastReceived: NIODeadline) -> NIODeadline {
        checks.next(after: lastReceived + settings.silence - checks.interval)
    }

    private func ping(_ link: Link, _ now: NIODeadline) {
        var pipeline = RedisPipeline()
        pipeline.append("PING")
        let request = RequestQueue.Request(
            count: 1, bytes: pipeline.bytes.count, deadline: now + min(settings.silence, settings.commandTimeout), begun: now
        ) { _ in }
        if requests.addInFlight(request) { link.write(pipeline.bytes) }
    }
}
