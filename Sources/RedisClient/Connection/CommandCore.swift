import Logging
import Metrics
import NIOCore
import Synchronization

/// The state of a `RedisClient`: what waits, what is in flight, and the connection. Lives on its event loop; nothing in it is locked.
final class CommandCore: LinkUser {
    typealias Completion = @Sendable (Result<[RESPValue], RedisError>) -> Void

    /// Read from any thread.
    final class Status: Sendable {
        let isStopped = Atomic(false)
        let isConnected = Atomic(false)
    }

    private let settings: RedisSettings
    private let status: Status
    private let url: RedisURL
    private let alarm: Alarm
    /// From a caller's wish to the last reply, the wait for a connection included. Where commands block, as in `claims`, it is a wait for
    /// work.
    private let latency: Timer
    private var keeper: LinkKeeper?
    private var link: Link?
    private var requests: RequestQueue
    private var onConnect: [@Sendable () -> Void] = []
    private var isStopped = false
    /// When the next command is followed by an ECHO that tells whether replies and commands are in step.
    private var nextEcho = NIODeadline.now()
    /// An ACL may forbid ECHO.
    private var isEchoForbidden = false
    private var echoes = 0

    /// From one such ECHO to the next, while commands are sent.
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
        alarm.ring = { [unowned self] now in rung(now) }
    }

    func run(_ waiter: CheckedContinuation<Void, Never>) { keeper?.run(waiter) }

    func stop() {
        guard !isStopped else { return }
        isStopped = true
        status.isStopped.store(true, ordering: .releasing)
        alarm.cancel()
        keeper?.stop()
        for request in requests.takeAll() { request.completion(.failure(RedisError(.shutdown, "the Redis client is shut down"))) }
        onConnect = []
    }

    func add(onConnect body: @escaping @Sendable () -> Void) { onConnect.append(body) }

    func send(_ pipeline: RedisPipeline, deadline: NIODeadline, completion: @escaping Completion) {
        guard !isStopped else { return completion(.failure(RedisError(.shutdown, "the Redis client is shut down"))) }
        guard pipeline.count > 0 else { return completion(.success([])) }
        guard pipeline.argumentsMissing == 0 else {
            // Sent as it is it would make Redis take the next command for arguments.
            return completion(.failure(RedisError(.protocolViolation, "a command has not as many arguments as it announced")))
        }
        let request = RequestQueue.Request(
            count: pipeline.count, bytes: pipeline.buffer.readableBytes, deadline: deadline, begun: .now(), completion: completion)
        if let link {
            guard requests.addInFlight(request) else {
                return completion(
                    .failure(
                        RedisError(
                            .overloaded,
                            "\(url) has not answered \(settings.inFlightMaximum) commands or \(settings.bytesMaximum) bytes of them yet")))
            }
            link.write(pipeline.buffer)
            echo(link, after: request)
        } else {
            guard requests.addWaiting(request, pipeline.buffer) else {
                return completion(
                    .failure(
                        RedisError(
                            .overloaded,
                            "no connection to \(url), and \(settings.waitingMaximum) commands or \(settings.bytesMaximum) bytes of them wait"
                        )))
            }
        }
        alarm.set(deadline)
    }

    /// Once in a while asks for a mark behind a command. After a reply that was lost or came twice all later ones would be taken for the
    /// answers of other commands, for as long as there is always one in flight.
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

    private func check(_ reply: RESPValue?, isEcho mark: String, _ link: Link) {
        switch reply {
        case .bulk(let buffer)? where buffer.readableBytesView.elementsEqual(mark.utf8): break
        case .error(let text)? where text.hasPrefix("NOPERM"): isEchoForbidden = true
        default: link.end(RedisError(.protocolViolation, "Redis' answers are not in step with the commands"))
        }
    }

    /// Ends the connection, because a reply did not fit its command: those behind it may not fit theirs either.
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
            .connectionLost, "the connection to \(url) was lost (\(reason)); whether the command was carried out is unknown")
        let now = NIODeadline.now()
        for (index, request) in requests.takeInFlight().enumerated() {
            switch reason.code {
            case .shutdown: request.completion(.failure(RedisError(.shutdown, "the Redis client is shut down")))
            case .timeout where request.deadline <= now:
                request.completion(.failure(RedisError(.timeout, "no answer from \(url) within the command's deadline")))
            case .protocolViolation where index == 0: request.completion(.failure(reason))
            default: request.completion(.failure(lost))
            }
        }
    }

    private func received(_ reply: RESPValue) {
        guard let link else { return }
        if case .error(let text) = reply, text.hasPrefix("READONLY") {
            // The server became a replica: another one is the master now, and a new connection may find it.
            link.endAfterReading(RedisError(.unavailable, "the server is a replica now (\(text))"))
        }
        switch requests.received(reply) {
        case .more: break
        case .complete(let request, let replies):
            if let mark = request.mark { return check(replies.first, isEcho: mark, link) }
            latency.recordNanoseconds((.now() - request.begun).nanoseconds)
            request.completion(.success(replies))
        case .unasked: link.end(RedisError(.protocolViolation, "Redis answered more than was asked"))
        }
    }

    // MARK: Deadlines

    private func rung(_ now: NIODeadline) {
        for request in requests.takeExpiredWaiting(now) {
            request.completion(.failure(RedisError(.unavailable, "no connection to \(url) within the command's deadline")))
        }
        if let link, requests.hasExpiredInFlight(now) {
            link.end(RedisError(.timeout, "a command was not answered within its deadline"))
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
