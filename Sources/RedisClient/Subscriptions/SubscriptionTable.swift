import NIOCore

package enum SubscriptionEvent: Sendable {
    case message(ByteBuffer)
    /// Redis confirmed the subscription, for the first time or after a reconnect; what was published before may be missed.
    case subscribed
    case lost
}

/// Which channels are wanted, what the server was told of them, and what it has confirmed. A machine without I/O.
///
/// Redis confirms every command for a channel in the order of the commands, so a channel's subscription is in force when the last command
/// sent for it was SUBSCRIBE and no confirmation is due any more. A confirmation that is overtaken by a later command counts for nothing.
struct SubscriptionTable {
    typealias Handler = @Sendable (SubscriptionEvent) -> Void

    private final class Entry {
        let channel: ByteBuffer
        /// Nil: not wanted any more, and kept until the server has confirmed that.
        var handler: Handler?
        /// Which `subscribe` the handler came by.
        var token: UInt64 = 0
        /// What the last command on this connection said.
        var isAsked = false
        var confirmationsDue = 0
        /// The handler knows that its subscription is in force.
        var isTold = false
        var isChanged = false

        init(channel: ByteBuffer) { self.channel = channel }
    }

    struct Changes {
        var subscribe: [ByteBuffer] = []
        var unsubscribe: [ByteBuffer] = []
        /// Of channels that are in force already: to be told `.subscribed`.
        var inForce: [Handler] = []
    }

    private var entries: [ByteBuffer: Entry] = [:]
    private var changed: [Entry] = []

    /// Replaces the channel's handler if it has one.
    mutating func subscribe(_ channel: String, token: UInt64, handler: @escaping Handler) {
        let name = ByteBuffer(string: channel)
        let entry = entries[name] ?? Entry(channel: name)
        entries[name] = entry
        entry.handler = handler
        entry.token = token
        entry.isTold = false
        change(entry)
    }

    /// - Parameter token: unsubscribes only what was subscribed by it; nil: whatever there is.
    mutating func unsubscribe(_ channel: String, token: UInt64?) {
        guard let entry = entries[ByteBuffer(string: channel)], entry.handler != nil, token == nil || entry.token == token else { return }
        entry.handler = nil
        change(entry)
    }

    private mutating func change(_ entry: Entry) {
        guard !entry.isChanged else { return }
        entry.isChanged = true
        changed.append(entry)
    }

    /// What to tell the server so that it knows what is wanted. Call it once a tick: what was changed back within it costs nothing.
    mutating func takeChanges() -> Changes {
        var changes = Changes()
        for entry in changed {
            entry.isChanged = false
            switch (entry.handler, entry.isAsked) {
            case (.some, false):
                ask(entry)
                changes.subscribe.append(entry.channel)
            case (nil, true):
                entry.isAsked = false
                entry.confirmationsDue += 1
                changes.unsubscribe.append(entry.channel)
            case (.some(let handler), true):
                guard entry.confirmationsDue == 0, !entry.isTold else { break }
                entry.isTold = true
                changes.inForce.append(handler)
            case (nil, false):
                remove(entry)
            }
        }
        changed = []
        return changes
    }

    private func ask(_ entry: Entry) {
        entry.isAsked = true
        entry.confirmationsDue += 1
    }

    private mutating func remove(_ entry: Entry) {
        if entry.handler == nil, entry.confirmationsDue == 0 { entries[entry.channel] = nil }
    }

    /// The server confirmed a SUBSCRIBE or an UNSUBSCRIBE. Returns the handler to be told `.subscribed`.
    mutating func confirmed(_ channel: ByteBuffer) -> Handler? {
        guard let entry = entries[channel], entry.confirmationsDue > 0 else { return nil }
        entry.confirmationsDue -= 1
        guard entry.confirmationsDue == 0 else { return nil }
        guard entry.isAsked else {
            if !entry.isChanged { remove(entry) }
            return nil
        }
        guard let handler = entry.handler, !entry.isTold else { return nil }
        entry.isTold = true
        return handler
    }

    /// Who gets a message of a channel: nobody before `.subscribed`.
    func receiver(of channel: ByteBuffer) -> Handler? {
        guard let entry = entries[channel], entry.isTold else { return nil }
        return entry.handler
    }

    /// The connection is gone: nothing is in force. Returns whom to tell `.lost`.
    mutating func lost() -> [Handler] {
        reset()
        return entries.values.compactMap(\.handler)
    }

    /// A new connection: everything that is wanted is to be asked for.
    mutating func restore() -> [ByteBuffer] {
        reset()
        for entry in entries.values { ask(entry) }
        return Array(entries.keys)
    }

    private mutating func reset() {
        for entry in changed { entry.isChanged = false }
        changed = []
        entries = entries.filter { $0.value.handler != nil }
        for entry in entries.values {
            entry.isAsked = false
            entry.isTold = false
            entry.confirmationsDue = 0
        }
    }
}
