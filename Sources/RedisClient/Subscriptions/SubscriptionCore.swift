import Logging
import Metrics
import NIOCore
import Synchronization

/// The state of a `RedisSubscriber`. Lives on its event loop; nothing in it is locked.
final class SubscriptionCore: LinkUser {
    /// Read from any thread.
    final class Status: Sendable {
        let isStopped = Atomic(false)
        /// Uptime in nanoseconds until which what was heard last counts; 0: not in force.
        let aliveUntil = Atomic<UInt64>(0)
        let tokens = Atomic<UInt64>(0)
    }

    /// Of one SUBSCRIBE after a reconnect.
    private static let channelsPerCommand = 500

    private let eventLoop: any EventLoop
    private let status: Status
    /// A connection on which nothing was heard for so long is thrown away.
    private let silence: TimeAmount
    /// From PING to PING.
    private let beat: TimeAmount
    /// How long an answer to PING may take, so that a loss is found `silence` after the last that was heard.
    private let patience: TimeAmount
    private let logger: Logger
    private let resubscribes: Counter
    private let alarm: Alarm
    private var keeper: LinkKeeper?
    private var table = SubscriptionTable()
    private var link: Link?
    private var nextBeat = NIODeadline.now()
    /// When the oldest PING was sent that nothing was heard after.
    private var asked: NIODeadline?
    /// Everything wanted was confirmed on this connection: it answered a PING sent after all that.
    private var isInForce = false
    private var isChangePlanned = false
    private var isStopped = false
    private var wasUp = false

    init(url: RedisURL, settings: RedisSettings, eventLoop: any EventLoop, name: String, logger: Logger, status: Status) {
        self.eventLoop = eventLoop
        self.status = status
        self.logger = logger
        silence = settings.silence
        replyMaximum = settings.messageMaximum
        beat = .nanoseconds(settings.silence.nanoseconds * 2 / 5)
        patience = silence - beat
        resubscribes = Counter(label: "sluice_redis_resubscribes_total", dimensions: [("connection", name)])
        alarm = Alarm(eventLoop: eventLoop)
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
        for handler in table.lost() { handler(.lost) }
        table = SubscriptionTable()
    }

    // MARK: Wishes

    func subscribe(_ channel: String, token: UInt64, handler: @escaping SubscriptionTable.Handler) {
        guard !isStopped else { return handler(.lost) }
        table.subscribe(channel, token: token, handler: handler)
        planChanges()
    }

    func unsubscribe(_ channel: String, token: UInt64?) {
        table.unsubscribe(channel, token: token)
        planChanges()
    }

    private func planChanges() {
        guard link != nil, !isChangePlanned else { return }
        isChangePlanned = true
        eventLoop.assumeIsolated().execute { [weak self] in self?.sendChanges() }
    }

    private func sendChanges() {
        isChangePlanned = false
        guard let link else { return }
        let changes = table.takeChanges()
        var pipeline = RedisPipeline()
        Self.append("UNSUBSCRIBE", changes.unsubscribe, to: &pipeline)
        Self.append("SUBSCRIBE", changes.subscribe, to: &pipeline)
        if pipeline.count > 0 {
            link.write(pipeline.buffer)
            link.flush()
        }
        for handler in changes.inForce { handler(.subscribed) }
    }

    private static func append(_ command: String, _ channels: [ByteBuffer], to pipeline: inout RedisPipeline) {
        var rest = channels[...]
        while !rest.isEmpty {
            let chunk = rest.prefix(channelsPerCommand)
            rest = rest.dropFirst(channelsPerCommand)
            pipeline.begin(arguments: 1 + chunk.count)
            pipeline.argument(command)
            for channel in chunk { pipeline.argument(channel) }
        }
    }

    // MARK: The connection

    let replyMaximum: Int

    func linkUp(_ link: Link) {
        self.link = link
        link.use(PushBuilder { [unowned self] push in received(push) })
        var pipeline = RedisPipeline()
        Self.append("SUBSCRIBE", table.restore(), to: &pipeline)
        if wasUp { resubscribes.increment() }
        wasUp = true
        // Answered after all the confirmations.
        pipeline.append("PING")
        link.write(pipeline.buffer)
        let now = NIODeadline.now()
        nextBeat = now + beat
        asked = now
        alarm.set(min(nextBeat, now + patience))
    }

    func linkLost(_ reason: RedisError) {
        link = nil
        isInForce = false
        status.aliveUntil.store(0, ordering: .releasing)
        for handler in table.lost() { handler(.lost) }
    }

    private func received(_ push: Push) {
        guard let link else { return }
        switch push {
        case .message(let channel, let payload):
            table.receiver(of: channel)?(.message(payload))
        case .subscribed(let channel), .unsubscribed(let channel):
            table.confirmed(channel)?(.subscribed)
        case .pong:
            isInForce = true
        case .error(let text):
            // As NOPERM for a channel: without it the rest is not what was asked for, and nobody would notice.
            return link.end(RedisError(.server, "Redis refuses to subscribe: \(text)"))
        }
        if isInForce, self.link != nil { status.aliveUntil.store((link.heard + silence).uptimeNanoseconds, ordering: .releasing) }
    }

    private func rung(_ now: NIODeadline) {
        guard let link else { return }
        if asked.map({ $0 < link.heard }) ?? false { asked = nil }
        // Not by `heard` alone: when this process did not run for a while, nobody was asked and nobody is to blame.
        if let asked, asked + patience <= now {
            return link.end(RedisError(.timeout, "nothing was heard for \(silence.readable), PING was not answered"))
        }
        if nextBeat <= now {
            nextBeat = now + beat
            asked = asked ?? now
            var pipeline = RedisPipeline()
            pipeline.append("PING")
            link.write(pipeline.buffer)
        }
        alarm.set(asked.map { min(nextBeat, $0 + patience) } ?? nextBeat)
    }
}
