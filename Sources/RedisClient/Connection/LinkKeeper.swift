import Logging
import Metrics
import NIOCore
import Support

/// Uses the connection that a `LinkKeeper` maintains. Called on the event loop.
protocol LinkUser: AnyObject {
    /// Maximum bytes of one reply; a larger one ends the connection.
    var replyMaximum: Int { get }
    /// The connection is logged in and ready. The user takes over the replies by `link.use`.
    func linkUp(_ link: Link)
    /// A connection reported by `linkUp` has ended.
    func linkLost(_ reason: RedisError)
}

/// Keeps a connection: connects, logs in and reconnects after a loss, with jittered back-off, until stopped. Used only on its event loop.
final class LinkKeeper: LinkOwner {
    /// The comments list the successor states.
    private enum State {
        /// → connecting, stopped
        case idle
        /// → handshaking, backingOff, stopped
        case connecting
        /// → up, backingOff, stopped
        case handshaking(Link, Handshake)
        /// → backingOff, stopped
        case up(Link)
        /// → connecting, stopped
        case backingOff(Scheduled<Void>)
        case stopped
    }

    private let url: RedisURL
    private let settings: RedisSettings
    private let eventLoop: any EventLoop
    private let name: String
    private let dialler: Dialler
    private let logger: Logger
    private let reconnects: Counter
    private unowned let user: any LinkUser

    private var state = State.idle
    /// Number of the current attempt; distinguishes late results of an abandoned attempt.
    private var attempt = 0
    private var attemptDeadline: Scheduled<Void>?
    private var backoff: Backoff
    private var outageBegan: NIODeadline?
    private var refusalLogged = false
    private var wasUp = false
    private var upSince = NIODeadline.now()
    private var waiters: [CheckedContinuation<Void, Never>] = []
    /// Announces a new primary; nil without sentinels.
    private var watch: SentinelWatch?

    init(url: RedisURL, settings: RedisSettings, eventLoop: any EventLoop, name: String, logger: Logger, user: any LinkUser) {
        self.url = url
        self.settings = settings
        self.eventLoop = eventLoop
        self.name = name
        self.user = user
        backoff = Backoff(
            from: .nanoseconds(settings.backoff.lowerBound.nanoseconds), to: .nanoseconds(settings.backoff.upperBound.nanoseconds))
        dialler = Dialler(url: url, settings: settings, eventLoop: eventLoop)
        reconnects = Counter(label: "sluice_redis_reconnects_total", dimensions: [("connection", name)])
        var logger = logger
        logger[metadataKey: "connection"] = "\(name)"
        logger[metadataKey: "redis"] = "\(url)"
        self.logger = logger
        if case .sentinel(let service, _, _) = url.endpoint {
            watch = SentinelWatch(
                service: service, sentinels: url.sentinels(password: settings.sentinelPassword), settings: settings, eventLoop: eventLoop,
                name: name, logger: logger
            ) { [weak self] address in self?.primaryMoved(to: address) }
        }
    }

    /// The server of the last connection; nil for a Unix socket.
    var server: ServerAddress? { dialler.server }

    var isStopped: Bool {
        if case .stopped = state { true } else { false }
    }

    /// Starts connecting; `waiter` resumes when the keeper stops.
    func run(_ waiter: CheckedContinuation<Void, Never>) {
        guard !isStopped else { return waiter.resume() }
        waiters.append(waiter)
        start()
    }

    /// Starts connecting.
    func start() {
        guard case .idle = state else { return }
        watch?.start()
        connect()
    }

    /// Closes the connection and stops reconnecting.
    func stop() {
        guard !isStopped else { return }
        let last = state
        state = .stopped
        attemptDeadline?.cancel()
        watch?.stop()
        dialler.stop()
        switch last {
        case .handshaking(let link, _), .up(let link): link.end(RedisError(.shutdown, "shut down"))
        case .backingOff(let timer): timer.cancel()
        case .idle, .connecting, .stopped: break
        }
        for waiter in waiters { waiter.resume() }
        waiters = []
    }

    // MARK: One attempt

    private func connect() {
        attempt += 1
        let current = attempt
        state = .connecting
        attemptDeadline = eventLoop.assumeIsolated().scheduleTask(in: settings.connectTimeout) { [weak self] in
            self?.attemptExpired(current)
        }
        dialler.dial { [weak self] result in
            guard let self, attempt == current, case .connecting = state else {
                if case .success(let channel) = result { channel.close(promise: nil) }
                return
            }
            switch result {
            case .success(let channel): startHandshake(channel)
            case .failure(let error): failed(error)
            }
        }
    }

    private func startHandshake(_ channel: any Channel) {
        do {
            let builder = ReplyBuilder { [weak self] reply in self?.handshakeReceived(reply) }
            let link = try Link(owner: self, sink: builder, replyMaximum: user.replyMaximum)
            let handshake = Handshake(url: url, name: name)
            state = .handshaking(link, handshake)
            if let tls = try dialler.makeTLSHandler() { try channel.pipeline.syncOperations.addHandler(tls) }
            try channel.pipeline.syncOperations.addHandler(link)
            link.write(handshake.request.bytes)
            link.flush()
        } catch {
            channel.close(promise: nil)
            if case .handshaking = state { failed(error as? RedisError ?? RedisError(.connectionLost, failureReason(error))) }
        }
    }

    private func handshakeReceived(_ reply: RESPValue) {
        guard case .handshaking(let link, var handshake) = state else {
            if case .up(let link) = state { link.end(RedisError(.protocolViolation, "Redis sent a reply without a command")) }
            return
        }
        let action = handshake.received(reply)
        state = .handshaking(link, handshake)
        switch action {
        case .wait: break
        case .refused(let error): link.end(error)
        case .connected: connected(link)
        }
    }

    private func connected(_ link: Link) {
        attemptDeadline?.cancel()
        state = .up(link)
        let (began, attempts, isReconnect) = (outageBegan, backoff.attempts + 1, wasUp)
        outageBegan = nil
        refusalLogged = false
        wasUp = true
        upSince = .now()
        // Update the visible state before metrics and logs.
        user.linkUp(link)
        if isReconnect { reconnects.increment() }
        if let began {
            let milliseconds = (NIODeadline.now() - began).nanoseconds / 1_000_000
            var metadata: Logger.Metadata = ["away_ms": "\(milliseconds)", "attempts": "\(attempts)"]
            if watch != nil, let server = dialler.server { metadata["primary"] = "\(server)" }
            logger.info("redis connection restored", metadata: metadata)
        }
    }

    private func attemptExpired(_ number: Int) {
        guard attempt == number else { return }
        defer { dialler.stop() }
        let error = RedisError(.timeout, "no connection within \(settings.connectTimeout.readable)")
        switch state {
        case .connecting: failed(error)
        case .handshaking(let link, _): link.end(error)
        case .idle, .up, .backingOff, .stopped: break
        }
    }

    // MARK: Fail-over

    /// Connects to another primary that a sentinel has announced, instead of waiting for the loss of the connection or for the next attempt.
    private func primaryMoved(to address: ServerAddress) {
        guard address != dialler.server else { return }
        switch state {
        case .idle, .stopped: break
        case .connecting:
            // A search in progress finds the new primary by itself.
            guard dialler.server != nil else { return }
            attemptDeadline?.cancel()
            connect()
        case .backingOff(let timer):
            timer.cancel()
            connect()
        case .handshaking(let link, _), .up(let link):
            logger.info("redis primary has changed", metadata: ["primary": "\(address)"])
            link.end(RedisError(.connectionLost, "the sentinels have announced another primary: \(address)"))
        }
    }

    // MARK: Loss

    func linkEnded(_ link: Link, _ reason: RedisError) {
        switch state {
        case .handshaking: failed(reason)
        case .up:
            // The login succeeded, so the server is reachable: reconnect quickly, because an interrupt may be on its way. If replies become
            // unreadable soon after every connect, or the server executes no commands, the back-off grows instead.
            if reason.code != .protocolViolation && reason.code != .unavailable || upSince + settings.backoff.upperBound <= .now() {
                backoff.reset()
            }
            scheduleReconnect()
            user.linkLost(reason)
            log(reason)
        case .stopped: user.linkLost(reason)
        case .idle, .connecting, .backingOff: break
        }
    }

    private func failed(_ reason: RedisError) {
        scheduleReconnect()
        log(reason)
    }

    /// Schedules the next attempt.
    private func scheduleReconnect() {
        attemptDeadline?.cancel()
        state = .backingOff(eventLoop.assumeIsolated().scheduleTask(in: TimeAmount(backoff.next())) { [weak self] in self?.connect() })
    }

    /// Logs once per outage, and once more when the server rejects the login, which an operator must fix.
    private func log(_ reason: RedisError) {
        if reason.code == .server {
            if !refusalLogged { logger.error("redis refuses the connection", metadata: ["reason": "\(reason)"]) }
            refusalLogged = true
        } else if outageBegan == nil {
            let metadata: Logger.Metadata = ["reason": "\(reason)"]
            if wasUp {
                logger.warning("redis connection lost", metadata: metadata)
            } else {
                logger.warning("redis cannot be reached", metadata: metadata)
            }
        }
        if outageBegan == nil { outageBegan = .now() }
    }
}
