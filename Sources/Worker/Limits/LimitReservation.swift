import JobQueue

/// A job's place under a limit over all workers, or in the line of those that wait for it. Not thread-safe: used on the upstream loop only.
final class LimitReservation {
    /// The states, with their successors.
    enum State {
        /// Redis has not answered yet. → waiting, admitted, released
        case asking
        /// → admitted, released
        case waiting
        /// → released
        case admitted
        case released
    }

    let limit: SharedLimit
    /// Unique among all reservations of all workers.
    let holder: String
    /// Tokens reserved.
    let tokens: Int
    var state = State.asking
    /// Called after each change of the state by an answer of Redis.
    let changed: (LimitReservation) -> Void

    init(_ limit: SharedLimit, holder: String, tokens: Int, changed: @escaping (LimitReservation) -> Void) {
        self.limit = limit
        self.holder = holder
        self.tokens = tokens
        self.changed = changed
    }
}
