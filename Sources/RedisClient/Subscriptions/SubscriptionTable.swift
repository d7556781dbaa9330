import NIOCore

/// An event of a subscription to a channel.
package enum SubscriptionEvent: Sendable {
    case message(ByteBuffer)
    /// Redis confirmed the subscription, for the first time or after a reconnect. Messages published before it may be missed.
    case subscribed
    /// The connection was lost or events were dropped; messages may be missed.
    case lost
}

/// The state of all subscriptions: the desired channels, the commands sent for them and the confirmations. A state machine without I/O.
///
/// Redis confirms the commands for a channel in order. So a subscription is active when the last command sent for the channel was
/// SUBSCRIBE and no confirmation is outstanding. A confirmation of a command followed by a later one has no effect.
struct SubscriptionTable {
    typealias Handler = @Sendable (SubscriptionEvent) -> Void

    /// The state of one channel.
    private final class Entry {
        let channel: ByteBuffer
        /// Nil after an unsubscribe; the entry is kept until the server has confirmed it.
        var handler: Handler?
        /// Whether the last command sent for the channel on this connection was SUBSCRIBE.
        var isSubscribeSent = false
        /// Number of outstanding confirmations.
        var confirmationsDue = 0
        /// Whether the handler has received `.subscribed`.
        var isNotified = false
        /// Whether the entry is in `changed`.
        var isChanged = false

        init(channel: ByteBuffer) { self.channel = channel }
    }

    /// The commands to send and the handlers to call.
    struct Changes {
        var subscribe: [ByteBuffer] = []
        var unsubscribe: [ByteBuffer] = []
        /// New handlers of active subscriptions, which must receive `.subscribed` now.
        var inForce: [Handler] = []
    }

    private var entries: [ByteBuffer: Entry] = [:]
    private var changed: [Entry] = []

    /// Sets the handler of a channel, replacing an earlier one.
    mutating func subscribe(_ channel: String, handler: @escaping Handler) {
        let name = ByteBuffer(string: channel)
        let entry = entries[name] ?? Entry(channel: name)
        entries[name] = entry
        entry.handler = handler
        entry.isNotified = false
        change(entry)
    }

    /// Removes the handler of a channel.
    mutating func unsubscribe(_ channel: String) {
        guard let entry = entries[ByteBuffer(string: channel)], entry.handler != nil else { return }
        entry.handler = nil
        change(entry)
    }

    private mutating func change(_ entry: Entry) {
        guard !entry.isChanged else { return }
        entry.isChanged = true
        changed.append(entry)
    }

    /// The changes since the last call. Call it once per tick, so that a change that was reverted within the tick sends no command.
    mutating func takeChanges() -> Changes {
        var changes = Changes()
        for entry in changed {
            entry.isChanged = false
            switch (entry.handler, entry.isSubscribeSent) {
            case (.some, false):
                markSubscribeSent(entry)
                changes.subscribe.append(entry.channel)
            case (nil, true):
                entry.isSubscribeSent = false
                entry.confirmationsDue += 1
                changes.unsubscribe.append(entry.channel)
            case (.some(let handler), true):
                guard entry.confirmationsDue == 0, !entry.isNotified else { break }
                entry.isNotified = true
                changes.inForce.append(handler)
            case (nil, false):
                remove(entry)
            }
        }
        changed = []
        return changes
    }

    private func markSubscribeSent(_ entry: Entry) {
        entry.isSubscribeSent = true
        entry.confirmationsDue += 1
    }

    private mutating func remove(_ entry: Entry) {
        if entry.handler == nil, entry.confirmationsDue == 0 { entries[entry.channel] = nil }
    }

    /// Handles a confirmation of a SUBSCRIBE or an UNSUBSCRIBE.
    /// - Returns: the handler that must receive `.subscribed`; nil if there is none.
    mutating func confirmed(_ channel: ByteBuffer) -> Handler? {
        guard let entry = entries[channel], entry.confirmationsDue > 0 else { return nil }
        entry.confirmationsDue -= 1
        guard entry.confirmationsDue == 0 else { return nil }
        guard entry.isSubscribeSent else {
            if !entry.isChanged { remove(entry) }
            return nil
        }
        guard let handler = entry.handler, !entry.isNotified else { return nil }
        entry.isNotified = true
        return handler
    }

    /// Whether the server has ended an active subscription without a command: in a cluster, because another node serves the slot now. Sends
    /// the SUBSCRIBE again with the next changes, if the channel still has a handler.
    /// - Returns: the handler that must receive `.lost`; nil if the subscription was not active.
    mutating func ended(_ channel: ByteBuffer) -> Handler? {
        guard let entry = entries[channel], entry.isSubscribeSent, entry.confirmationsDue == 0 else { return nil }
        entry.isSubscribeSent = false
        entry.isNotified = false
        change(entry)
        return entry.handler
    }

    /// Handles the refusal of a command for these channels. Refused SUBSCRIBEs are sent again with the next changes.
    mutating func refused(_ channels: [ByteBuffer], isSubscribe: Bool) {
        for channel in channels {
            guard let entry = entries[channel], entry.confirmationsDue > 0 else { continue }
            entry.confirmationsDue -= 1
            guard entry.confirmationsDue == 0 else { continue }
            if isSubscribe { entry.isSubscribeSent = false }
            change(entry)
        }
    }

    /// The handler for a message of a channel; nil before the handler has received `.subscribed`.
    func receiver(of channel: ByteBuffer) -> Handler? {
        guard let entry = entries[channel], entry.isNotified else { return nil }
        return entry.handler
    }

    /// Handles the loss of the connection.
    /// - Returns: the handlers that must receive `.lost`.
    mutating func lost() -> [Handler] {
        reset()
        return entries.values.compactMap(\.handler)
    }

    /// Handles a new connection.
    /// - Returns: all channels to subscribe to.
    mutating func restore() -> [ByteBuffer] {
        reset()
        for entry in entries.values { markSubscribeSent(entry) }
        return Array(entries.keys)
    }

    /// Removes entries without a handler and clears the state that belongs to a connection.
    private mutating func reset() {
        for entry in changed { entry.isChanged = false }
        changed = []
        entries = entries.filter { $0.value.handler != nil }
        for entry in entries.values {
            entry.isSubscribeSent = false
            entry.isNotified = false
            entry.confirmationsDue = 0
        }
    }
}
