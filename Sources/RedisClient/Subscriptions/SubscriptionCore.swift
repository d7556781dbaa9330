import DequeModule
import Logging
import Metrics
import NIOCore
import Synchronization

/// The state of a `RedisSubscriber`. Used only on its event loop, without locks.
final class SubscriptionCore: LinkUser, ConnectionCore {
    /// The part of the state that is read from any thread.
    final class Status: Sendable {
        /// Uptime in nanoseconds until which the connection counts as alive; 0 while subscriptions are not active.
        let aliveUntil = Atomic<UInt64>(0)
    }

    /// Maximum number of channels in one SUBSCRIBE or UNSUBSCRIBE.
    private static let channelsPerCommand = 500

    private let eventLoop: any EventLoop
    private let status: Status
    /// Time without received data after which the connection is closed.
    private let silence: TimeAmount
    /// When PINGs are sent.
    private let checks: CheckTimes
    /// Timeout of a PING, chosen so that a loss is detected `silence` after the last received data.
    private let pingTimeout: TimeAmount
    private let logger: Logger
    private let resubscribes: Counter
    private let alarm: Alarm
    private var keeper: LinkKeeper?
    private var table = SubscriptionTable()
    private var link: Link?
    private var nextPing = NIODeadline.now()
    /// Time of the oldest PING after which no data was received.
    private var pingSent: NIODeadline?
    /// Whether all subscriptions are confirmed on this connection: a PING sent after them was answered.
    private var isInForce = false
    private var isChangePlanned = false
    private var isStopped = false
    private var wasUp = false
    /// Of sharded channels; nil for ordinary ones.
    private let sharding: Sharding?
    /// The commands for sharded channels without a reply yet, oldest first.
    private var unanswered: Deque<ShardedCommand> = []

    /// What a subscriber of sharded channels reports to its owner.
    struct Sharding {
        /// The node refuses subscriptions or has ended one, because it does not serve the slot: the text of the error, or nil.
        let refused: (String?) -> Void
        /// The connection was made (true) or lost (false).
        let changed: (Bool) -> Void
    }

    /// One SSUBSCRIBE or SUNSUBSCRIBE. The server executes it for all channels or refuses it with one error.
    private struct ShardedCommand {
        let channels: [ByteBuffer]
        let isSubscribe: Bool
        var missing: Int
    }

    /// - Parameter sharding: for sharded channels.
    init(
        url: RedisURL, settings: RedisSettings, eventLoop: any EventLoop, name: String, logger: Logger, status: Status,
        sharding: Sharding? = nil
    ) {
        self.eventLoop = eventLoop
        self.sharding = sharding
        self.status = status
        self.logger = logger
        silence = settings.silence
        replyMaximum = settings.messageMaximum
        checks = CheckTimes(silence: silence)
        pingTimeout = silence - checks.interval
        resubscribes = Counter(label: "sluice_redis_resubscribes_total", dimensions: [("connection", name)])
        alarm = Alarm(eventLoop: eventLoop)
        keeper = LinkKeeper(url: url, settings: settings, eventLoop: eventLoop, name: name, logger: logger, user: self)
        alarm.ring = { [unowned self] now in alarmRang(now) }
    }

    func run(_ waiter: CheckedContinuation<Void, Never>) { keeper?.run(waiter) }

    /// Starts connecting, without a waiter.
    func start() { keeper?.start() }

    func stop() {
        guard !isStopped else { return }
        isStopped = true
        alarm.cancel()
        keeper?.stop()
        for handler in table.lost() { handler(.lost) }
        table = SubscriptionTable()
    }

    // MARK: Subscribing

    func subscribe(_ channel: String, handler: @escaping SubscriptionTable.Handler) {
        guard !isStopped else { return handler(.lost) }
        table.subscribe(channel, handler: handler)
        planChanges()
    }

    func unsubscribe(_ channel: String) {
        table.unsubscribe(channel)
        planChanges()
    }

    /// Schedules `sendChanges` at the end of the tick, so that changes of one tick are sent together.
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
        append(changes.unsubscribe, isSubscribe: false, to: &pipeline)
        append(changes.subscribe, isSubscribe: true, to: &pipeline)
        if pipeline.count > 0 {
            link.write(pipeline.bytes)
            link.flush()
        }
        for handler in changes.inForce { handler(.subscribed) }
    }

    private func append(_ channels: [ByteBuffer], isSubscribe: Bool, to pipeline: inout RedisPipeline) {
        guard sharding != nil else { return Self.append(isSubscribe ? "SUBSCRIBE" : "UNSUBSCRIBE", channels, to: &pipeline) { _ in } }
        // The channels of one command must be in one slot.
        for slot in Dictionary(grouping: channels, by: { HashSlot.of($0.readableBytesView) }).values {
            Self.append(isSubscribe ? "SSUBSCRIBE" : "SUNSUBSCRIBE", slot, to: &pipeline) { chunk in
                unanswered.append(ShardedCommand(channels: chunk, isSubscribe: isSubscribe, missing: chunk.count))
            }
        }
    }

    private static func append(
        _ command: String, _ channels: [ByteBuffer], to pipeline: inout RedisPipeline, appended: ([ByteBuffer]) -> Void
    ) {
        var rest = channels[...]
        while !rest.isEmpty {
            let chunk = Array(rest.prefix(channelsPerCommand))
            rest = rest.dropFirst(channelsPerCommand)
            pipeline.begin(arguments: 1 + chunk.count)
            pipeline.argument(command)
            for channel in chunk { pipeline.argument(channel) }
            appended(chunk)
        }
    }

    // MARK: The connection

    let replyMaximum: Int

    func linkUp(_ link: Link) {
        self.link = link
        link.use(PushBuilder { [unowned self] push in received(push) })
        var pipeline = RedisPipeline()
        unanswered = []
        append(table.restore(), isSubscribe: true, to: &pipeline)
        if wasUp { resubscribes.increment() }
        wasUp = true
        // Redis replies to PING after all confirmations.
        pipeline.append("PING")
        link.write(pipeline.bytes)
        let now = NIODeadline.now()
        nextPing = checks.next(after: now)
        pingSent = now
        alarm.set(min(nextPing, now + pingTimeout))
        sharding?.changed(true)
    }

    func linkLost(_ reason: RedisError) {
        link = nil
        isInForce = false
        status.aliveUntil.store(0, ordering: .releasing)
        for handler in table.lost() { handler(.lost) }
        sharding?.changed(false)
    }

    private func received(_ push: Push) {
        guard let link else { return }
        switch push {
        case .message(let channel, let payload):
            table.receiver(of: channel)?(.message(payload))
        case .unsubscribed(let channel) where sharding != nil && unanswered.first?.isSubscribe != false:
            // Not the reply to a command: the slot has another owner.
            table.ended(channel)?(.lost)
            sharding?.refused(nil)
        case .subscribed(let channel), .unsubscribed(let channel):
            replied()
            table.confirmed(channel)?(.subscribed)
        case .pong:
            isInForce = true
        case .error(let text) where UnexecutedReply(.error(text)) != nil && !unanswered.isEmpty:
            let command = unanswered.removeFirst()
            table.refused(command.channels, isSubscribe: command.isSubscribe)
            sharding?.refused(text)
        case .error(let text):
            // For example NOPERM for a channel. Without this the missing subscription would remain unnoticed.
            return link.end(RedisError(.server, "Redis rejected a subscription: \(text)"))
        }
        if isInForce, self.link != nil { status.aliveUntil.store((link.lastReceived + silence).uptimeNanoseconds, ordering: .releasing) }
    }

    /// Counts one confirmation of the oldest command for sharded channels.
    private func replied() {
        guard !unanswered.isEmpty else { return }
        unanswered[0].missing -= 1
        if unanswered[0].missing == 0 { unanswered.removeFirst() }
    }

    /// Sends refused subscriptions again.
    func subscribeAgain() { planChanges() }

    private func alarmRang(_ now: NIODeadline) {
        guard let link else { return }
        if pingSent.map({ $0 < link.lastReceived }) ?? false { pingSent = nil }
        // `lastReceived` alone is not enough: after a pause of this process no PING was sent, so silence proves nothing about the server.
        if let pingSent, pingSent + pingTimeout <= now {
            return link.end(RedisError(.timeout, "no data received for \(silence.readable), PING was not answered"))
        }
        if nextPing <= now {
            nextPing = checks.next(after: now)
            pingSent = pingSent ?? now
            var pipeline = RedisPipeline()
            pipeline.append("PING")
            link.write(pipeline.bytes)
        }
        alarm.set(pingSent.map { min(nextPing, $0 + pingTimeout) } ?? nextPing)
    }
}
