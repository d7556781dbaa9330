import Logging
import Metrics
import NIOCore

/// What a connection is kept for. Called on the event loop.
protocol LinkUser: AnyObject {
    /// Bytes of one reply; a larger one ends the connection.
    var replyMaximum: Int { get }
    /// Logged in and ready. The user takes over the replies by `link.use`.
    func linkUp(_ link: Link)
    /// A link that was up is no more.
    func linkLost(_ reason: RedisError)
}

/// Connects, logs in, and after a loss begins again, for ever, with jittered back-off. Lives on its event loop.
final class LinkKeeper: LinkOwner {
    private enum State {
        /// → connecting, stopped
        case idle
        /// → greeting, resting, stopped
        case connecting
        /// → up, resting, stopped
        case greeting(Link, Handshake)
        /// → resting, stopped
        case up(Link)
        /// → connecting, stopped
        case resting(Scheduled<Void>)
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
    /// Tells a late answer of an attempt that was given up from one of the present.
    private var attempt = 0
    private var attemptDeadline: Scheduled<Void>?
    private var failures = 0
    private var outageBegan: NIODeadline?
    private var refusalLogged = false
    private var wasUp = false
    private var upSince = NIODeadline.now()
    private var waiters: [CheckedContinuation<Void, Never>] = []

    init(url: RedisURL, settings: RedisSettings, eventLoop: any EventLoop, name: String, logger: Logger, user: any LinkUser) {
        self.url = url
        self.settings = settings
        self.eventLoop = eventLoop
        self.name = name
        self.user = user
        dialler = Dialler(url: url, settings: settings, eventLoop: eventLoop)
        reconnects = Counter(label: "sluice_redis_reconnects_total", dimensions: [("connection", name)])
        var logger = logger
        logger[metadataKey: "connection"] = "\(name)"
        logger[metadataKey: "redis"] = "\(url)"
        self.logger = logger
    }

    var isStopped: Bool {
        if case .stopped = state { true } else { false }
    }

    /// Resumed when the keeper stops.
    func run(_ waiter: CheckedContinuation<Void, Never>) {
        guard !isStopped else { return waiter.resume() }
        waiters.append(waiter)
        if case .idle = state { connect() }
    }

    func stop() {
        guard !isStopped else { return }
        let last = state
        state = .stopped
        attemptDeadline?.cancel()
        switch last {
        case .greeting(let link, _), .up(let link): link.end(RedisError(.shutdown, "shut down"))
        case .resting(let timer): timer.cancel()
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
            case .success(let channel): greet(channel)
            case .failure(let error): failed(error)
            }
        }
    }

    private func greet(_ channel: any Channel) {
        do {
            let builder = ReplyBuilder { [weak self] reply in self?.greeted(reply) }
            let link = try Link(owner: self, sink: builder, replyMaximum: user.replyMaximum)
            let handshake = Handshake(url: url, name: name)
            state = .greeting(link, handshake)
            if let tls = try dialler.makeTLSHandler() { try channel.pipeline.syncOperations.addHandler(tls) }
            try channel.pipeline.syncOperations.addHandler(link)
            link.write(handshake.request.buffer)
            link.flush()
        } catch {
            channel.close(promise: nil)
            if case .greeting = state { failed(error as? RedisError ?? RedisError(.connectionLost, failureReason(error))) }
        }
    }

    private func greeted(_ reply: RESPValue) {
        guard case .greeting(let link, var handshake) = state else {
            if case .up(let link) = state { link.end(RedisError(.protocolViolation, "Redis answered more than was asked")) }
            return
        }
        let action = handshake.received(reply)
        state = .greeting(link, handshake)
        switch action {
        case .wait: break
        case .refused(let error): link.end(error)
        case .connected: connected(link)
        }
    }

    private func connected(_ link: Link) {
        attemptDeadline?.cancel()
        state = .up(link)
        let (began, attempts, isReconnect) = (outageBegan, failures + 1, wasUp)
        outageBegan = nil
        refusalLogged = false
        wasUp = true
        upSince = .now()
        // First what others see, then what is said about it.
        user.linkUp(link)
        if isReconnect { reconnects.increment() }
        if let began {
            let milliseconds = (NIODeadline.now() - began).nanoseconds / 1_000_000
            logger.info("redis connection is back", metadata: ["away_ms": "\(milliseconds)", "attempts": "\(attempts)"])
        }
    }

    private func attemptExpired(_ number: Int) {
        guard attempt == number else { return }
        let error = RedisError(.timeout, "no connection within \(settings.connectTimeout.readable)")
        switch state {
        case .connecting: failed(error)
        case .greeting(let link, _): link.end(error)
        case .idle, .up, .resting, .stopped: break
        }
    }

    // MARK: Loss

    func linkEnded(_ link: Link, _ reason: RedisError) {
        switch state {
        case .greeting: failed(reason)
        case .up:
            // It was logged in, so the server is there: the wait is short however often this happens, for an interrupt may be on its way. A
            // server whose answers cannot be read soon after every connect is not asked without end.
            if reason.code != .protocolViolation || upSince + settings.backoff.upperBound <= .now() { failures = 0 }
            rest()
            user.linkLost(reason)
            log(reason)
        case .stopped: user.linkLost(reason)
        case .idle, .connecting, .resting: break
        }
    }

    private func failed(_ reason: RedisError) {
        rest()
        log(reason)
    }

    private func rest() {
        attemptDeadline?.cancel()
        let from = settings.backoff.lowerBound.nanoseconds
        let to = settings.backoff.upperBound.nanoseconds
        let ceiling = min(to, failures < 16 ? from.multipliedReportingOverflow(by: 1 << Int64(failures)).partialValue : to)
        failures += 1
        let delay = TimeAmount.nanoseconds(Int64.random(in: 0...max(0, ceiling)))
        state = .resting(eventLoop.assumeIsolated().scheduleTask(in: delay) { [weak self] in self?.connect() })
    }

    /// Once an outage, and once more when the server answers but refuses: that one needs a person.
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
