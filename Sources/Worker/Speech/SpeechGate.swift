import DequeModule

/// Limits the open syntheses of a worker; further ones wait in order. Not thread-safe: used on the upstream loop only.
final class SpeechGate {
    /// Permission to open one synthesis; must be returned with `leave`.
    final class Ticket {
        fileprivate enum State { case new, waiting, admitted, over }
        fileprivate var state = State.new
        fileprivate let admitted: () -> Void

        /// - Parameter admitted: called when a waiting ticket is admitted; not called when `enter` returned true.
        init(admitted: @escaping () -> Void) { self.admitted = admitted }

        var isWaiting: Bool { state == .waiting }
    }

    private var free: Int
    private var waiting: Deque<Ticket> = []

    init(limit: Int) { free = limit }

    /// Requests admission.
    /// - Returns: true if admitted; false if the ticket waits.
    func enter(_ ticket: Ticket) -> Bool {
        guard free > 0 else {
            ticket.state = .waiting
            waiting.append(ticket)
            return false
        }
        free -= 1
        ticket.state = .admitted
        return true
    }

    /// Returns a ticket, admitted or waiting, and admits the next waiting ones.
    func leave(_ ticket: Ticket) {
        let held = ticket.state == .admitted
        ticket.state = .over
        guard held else {
            // Abandoned tickets must not accumulate behind a waiting one.
            while waiting.last?.state == .over { waiting.removeLast() }
            return
        }
        free += 1
        while free > 0, let next = waiting.popFirst() {
            guard next.isWaiting else { continue }
            free -= 1
            next.state = .admitted
            next.admitted()
        }
    }
}
