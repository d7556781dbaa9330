import Contract
import JobQueue

/// The state of `sluice top` and the effects of its keys, without I/O.
struct TopMachine: Sendable {
    /// A list on the screen.
    enum Section: Int, CaseIterable, Sendable { case queues, workers, jobs }

    /// A line that can be selected. Identified by name instead of position, since rows move and an action must not affect another row.
    enum Row: Hashable, Sendable {
        case queue(JobClass)
        case worker(String)
        case job(String)

        var section: Section {
            switch self {
            case .queue: .queues
            case .worker: .workers
            case .job: .jobs
            }
        }
    }

    enum Input: Sendable {
        case snapshot(DeploymentSnapshot)
        /// Redis did not answer, for this reason.
        case unreachable(String)
        case key(TopKey)
        /// The outcome of an action, for people.
        case actionEnded(String)
    }

    enum Action: Equatable, Sendable {
        case none
        case pause(JobClass, Bool)
        case drain(String)
        case interrupt(String)
        case quit
    }

    /// An action that requires confirmation.
    struct Question: Equatable, Sendable {
        let text: String
        let action: Action
    }

    /// Number of snapshots in `history`.
    private static let historyLength = 120
    /// Rows that Page Up and Page Down move by.
    private static let page = 10

    private(set) var history: [DeploymentSnapshot] = []
    private(set) var selected = Row.queue(.interactive)
    /// The pending confirmation of an action.
    private(set) var question: Question?
    private(set) var message: String?
    /// Why the latest snapshot is outdated; nil when it is current.
    private(set) var trouble: String?

    var snapshot: DeploymentSnapshot? { history.last }

    /// Applies an input.
    /// - Returns: the action to carry out.
    mutating func receive(_ input: Input) -> Action {
        switch input {
        case .snapshot(let snapshot):
            history.append(snapshot)
            if history.count > Self.historyLength { history.removeFirst() }
            trouble = nil
            restoreSelection()
            return .none
        case .unreachable(let reason):
            trouble = reason
            return .none
        case .actionEnded(let text):
            message = text
            return .none
        case .key(let key): return handle(key)
        }
    }

    /// The rows of a list in screen order.
    func rows(of section: Section) -> [Row] {
        guard let snapshot else { return [] }
        switch section {
        case .queues: return snapshot.queues.map { .queue($0.priority) }
        case .workers: return snapshot.workers.map { .worker($0.name) }
        case .jobs: return snapshot.slowest.map { .job($0.id) }
        }
    }

    private var allRows: [Row] { Section.allCases.flatMap { rows(of: $0) } }

    /// When the selected row has disappeared, selects the first row of its list, or of the first list that is not empty.
    private mutating func restoreSelection() {
        let list = rows(of: selected.section)
        guard !list.contains(selected) else { return }
        // The pending action refers to a row that has disappeared and must not be applied to another row.
        question = nil
        selected = list.first ?? allRows.first ?? selected
    }

    // MARK: keys

    /// Handles a key. While a question is pending, only `y` confirms its action.
    private mutating func handle(_ key: TopKey) -> Action {
        message = nil
        if let question {
            self.question = nil
            if key == .character("y") || key == .character("Y") { return question.action }
            if key == .end { return .quit }
            message = "cancelled"
            return .none
        }
        switch key {
        case .end, .character("q"): return .quit
        case .up, .character("k"): move(by: -1)
        case .down, .character("j"): move(by: 1)
        case .pageUp: move(by: -Self.page)
        case .pageDown: move(by: Self.page)
        case .next: nextSection()
        case .character("p"): askToPause()
        case .character("d"): askToDrain()
        case .character("i"): askToInterrupt()
        case .escape, .character: break
        }
        return .none
    }

    private mutating func move(by step: Int) {
        let rows = allRows
        guard let index = rows.firstIndex(of: selected) else { return }
        selected = rows[min(max(0, index + step), rows.count - 1)]
    }

    /// Selects the first row of the next list that is not empty.
    private mutating func nextSection() {
        let count = Section.allCases.count
        for offset in 1...count {
            guard let section = Section(rawValue: (selected.section.rawValue + offset) % count) else { continue }
            if let first = rows(of: section).first {
                selected = first
                return
            }
        }
    }

    private mutating func askToPause() {
        guard case .queue(let priority) = selected, let queue = snapshot?.queues.first(where: { $0.priority == priority }) else {
            message = "p pauses or resumes a queue: choose one first (Tab)"
            return
        }
        question = Question(
            text: queue.isPaused ? "Resume \(priority.rawValue)?" : "Pause \(priority.rawValue)? Workers will claim no more of its jobs.",
            action: .pause(priority, !queue.isPaused))
    }

    private mutating func askToDrain() {
        guard case .worker(let name) = selected else {
            message = "d drains a worker: choose one first (Tab)"
            return
        }
        question = Question(text: "Drain \(Terminal.printable(name))? It claims no new jobs and ends.", action: .drain(name))
    }

    private mutating func askToInterrupt() {
        guard case .job(let id) = selected else {
            message = "i interrupts a job: choose one first (Tab)"
            return
        }
        question = Question(text: "Interrupt \(Terminal.printable(id))?", action: .interrupt(id))
    }
}
