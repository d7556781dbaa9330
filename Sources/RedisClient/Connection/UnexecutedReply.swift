import NIOCore

/// An error reply which says that Redis did not execute the command, so that the command can be sent again.
struct UnexecutedReply: Equatable {
    private enum Kind: String {
        /// The server is a replica; after a fail-over, the former primary.
        case readOnly = "READONLY"
        case loading = "LOADING"
        /// A replica without its primary.
        case masterDown = "MASTERDOWN"
        /// Fewer replicas than `min-replicas-to-write`.
        case noReplicas = "NOREPLICAS"
        case moved = "MOVED"
        case ask = "ASK"
        case tryAgain = "TRYAGAIN"
        case clusterDown = "CLUSTERDOWN"
    }

    private let kind: Kind
    /// The reply.
    let text: String

    /// Nil for any other reply. A script that failed at its first write has executed nothing either: Redis refuses all writes of a script, or
    /// none. Redis 7 puts the word first, possibly after `ERR`; Redis 6.2 after `ERR Error running script (…): @user_script:1: -`, or after
    /// `@user_script: 1: -` in an error that the script returns.
    init?(_ reply: RESPValue) {
        guard case .error(let text) = reply else { return nil }
        var rest = text[...]
        if rest.hasPrefix("ERR ") { rest.removeFirst("ERR ".count) }
        if rest.hasPrefix("Error running script") || rest.hasPrefix("@user_script"), let dash = rest.firstRange(of: ": -") {
            rest = rest[dash.upperBound...]
        }
        if rest.hasPrefix("-") { rest.removeFirst() }
        guard let kind = Kind(rawValue: String(rest.prefix { $0 != " " })) else { return nil }
        self.kind = kind
        self.text = text
    }

    /// Whether repeating the command on the same connection is pointless.
    var needsNewConnection: Bool {
        switch kind {
        case .readOnly, .loading, .masterDown: true
        case .noReplicas, .moved, .ask, .tryAgain, .clusterDown: false
        }
    }

    /// Whether the reply is MOVED: another node serves the slot.
    var isMoved: Bool { kind == .moved }

    /// Whether the known topology of the cluster may be wrong.
    var concernsTopology: Bool {
        switch kind {
        case .moved, .clusterDown, .readOnly, .masterDown: true
        case .loading, .noReplicas, .ask, .tryAgain: false
        }
    }
}
