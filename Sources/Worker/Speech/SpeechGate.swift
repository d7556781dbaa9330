import DequeModule

/// How many syntheses this worker has open at once: those beyond wait for their turn. Lives on the loop.
final class SpeechGate {
    /// Leave to open one synthesis, to be given back with `leave`.
    final class Ticket {
        fileprivate enum State { case new, waiting, admitted, over }
        fileprivate var state = State.new
        fileprivate let admitted: () -> Void

        /// - Parameter admitted: called when it has waited and its turn has come.
        init(admitted: @escaping () -> Void) { self.admitted = admitted }

        var isWaiting: Bool { state == .waiting }
    }

    private var free: Int
    private var waiting: Deque<Ticket> = []

    init(limit: Int) { free = limit }

    /// - Returns: false when it has to wait.
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

    /// What the ticket was for is over, begun or not.
    func leave(_ ticket: Ticket) {
        let held = ticket.state == .admitted
        ticket.state = .over
        guard held else {
            // Those that gave up before their turn do not pile up behind one that takes long.
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
