import Logging
import NIOCore

/// Subscribes to the sentinels' announcements of a new primary, one connection per sentinel. Used only on its event loop.
///
/// Without it a fail-over would be noticed by the loss of the connection alone, and late when the former primary is frozen or cut off.
final class SentinelWatch {
    private let service: String
    private let eventLoop: any EventLoop
    private let cores: [SubscriptionCore]
    private let moved: (ServerAddress) -> Void

    /// - Parameters:
    ///   - sentinels: the sentinels' own URLs, with their password.
    ///   - moved: called on the event loop with the address of the new primary, once per sentinel that announces it.
    init(
        service: String, sentinels: [RedisURL], settings: RedisSettings, eventLoop: any EventLoop, name: String, logger: Logger,
        moved: @escaping (ServerAddress) -> Void
    ) {
        self.service = service
        self.eventLoop = eventLoop
        self.moved = moved
        cores = sentinels.map {
            SubscriptionCore(
                url: $0, settings: settings, eventLoop: eventLoop, name: "\(name)-sentinel", logger: logger,
                status: SubscriptionCore.Status())
        }
    }

    /// Connects to the sentinels, and reconnects until `stop`.
    func start() {
        // The cycle of references is broken by `stop`, which removes the handlers.
        let watch = NIOLoopBound(self, eventLoop: eventLoop)
        for core in cores {
            core.subscribe("+switch-master") { event in
                if case .message(let payload) = event { watch.value.received(String(buffer: payload)) }
            }
            core.start()
        }
    }

    func stop() {
        for core in cores { core.stop() }
    }

    private func received(_ message: String) {
        if let address = Self.newPrimary(in: message, of: service) { moved(address) }
    }

    /// The address in a message `<service> <old host> <old port> <new host> <new port>`; nil for another service.
    static func newPrimary(in message: String, of service: String) -> ServerAddress? {
        guard message.hasPrefix(service + " ") else { return nil }
        let parts = message.dropFirst(service.count + 1).split(separator: " ")
        guard parts.count == 4 else { return nil }
        return ServerAddress(host: String(parts[2]), port: String(parts[3]))
    }
}
