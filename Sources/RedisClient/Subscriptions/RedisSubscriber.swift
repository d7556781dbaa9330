import Logging
import NIOCore
import Synchronization

/// One connection that carries subscriptions, and after a reconnect subscribes to all of them again.
package final class RedisSubscriber: Sendable {
    package let eventLoop: any EventLoop
    private let status = SubscriptionCore.Status()
    private let core: NIOLoopBoundBox<SubscriptionCore>

    /// - Parameter name: for logs, metrics and `CLIENT LIST`.
    package init(url: RedisURL, settings: RedisSettings, eventLoop: any EventLoop, name: String, logger: Logger) {
        self.eventLoop = eventLoop
        let core = SubscriptionCore(url: url, settings: settings, eventLoop: eventLoop, name: name, logger: logger, status: status)
        self.core = .makeBoxSendingValue(core, eventLoop: eventLoop)
    }

    deinit {
        // As in RedisClient.
        guard !status.isStopped.load(ordering: .acquiring) else { return }
        eventLoop.execute { [core] in core.value.stop() }
    }

    /// Keeps a connection until the task is cancelled or `shutdown` is called.
    package func run() async {
        await withTaskCancellationHandler {
            await withCheckedContinuation { waiter in
                eventLoop.execute { self.core.value.run(waiter) }
            }
        } onCancel: {
            shutdown()
        }
    }

    /// Closes the connection; every handler is told `.lost`, for the last time.
    package func shutdown() {
        onLoop { $0.stop() }
    }

    /// Connected, everything subscribed again, and PING answered (or a message received) within the last 5 s. From any thread.
    ///
    /// A subscription that was asked for a moment ago does not make it false: a confirmation that fails to come is found by PING, which is
    /// answered after it.
    package var isAlive: Bool {
        NIODeadline.now().uptimeNanoseconds < status.aliveUntil.load(ordering: .acquiring)
    }

    /// One handler a channel: a new one takes the place of the old, which is not called again. `handler` runs on the event loop; must be
    /// called on it too.
    /// `.subscribed` tells that it is in force; no message comes before it.
    package func subscribe(_ channel: String, handler: @escaping @Sendable (SubscriptionEvent) -> Void) {
        subscribe(channel, token: newToken(), handler: handler)
    }

    /// The handler is not called again (at once when this is called on the event loop, as it must be).
    package func unsubscribe(_ channel: String) {
        onLoop { $0.unsubscribe(channel, token: nil) }
    }

    func newToken() -> UInt64 {
        status.tokens.wrappingAdd(1, ordering: .relaxed).newValue
    }

    func subscribe(_ channel: String, token: UInt64, handler: @escaping @Sendable (SubscriptionEvent) -> Void) {
        onLoop { $0.subscribe(channel, token: token, handler: handler) }
    }

    /// Leaves a later subscription of the channel alone.
    func unsubscribe(_ channel: String, token: UInt64) {
        onLoop { $0.unsubscribe(channel, token: token) }
    }

    private func onLoop(_ body: @escaping @Sendable (SubscriptionCore) -> Void) {
        if eventLoop.inEventLoop {
            body(core.value)
        } else {
            eventLoop.execute { [core] in body(core.value) }
        }
    }
}
