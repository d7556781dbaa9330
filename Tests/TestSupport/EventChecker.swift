import Contract
import JSONCodec

/// Checks the events of one job in the order in which a reader receives them, by the rules of the contract and without knowledge of the
/// implementation.
package struct EventChecker: Sendable {
    package let job: String
    package private(set) var problems: [String] = []
    package private(set) var events: [JSON] = []
    package private(set) var types: [String] = []
    package private(set) var text = ""
    package private(set) var reasoning = ""
    package private(set) var terminal: JSON?
    package private(set) var attempts: [Int] = []
    /// Number of channel events whose id was not above the last one; a reader drops them.
    package private(set) var stale = 0
    private var last: (attempt: Int, sequence: Int)?
    private let whole: String?
    /// Whether the events come from the channel. A channel reader drops events that are not above its last id; in the log such an event is
    /// an error.
    private let live: Bool

    /// - Parameter model: the simulator's model; the received text must always be a prefix of the model's text.
    package init(job: String, model: String?, live: Bool) {
        self.job = job
        self.live = live
        whole = model.flatMap(SimulatorText.whole)
    }

    package var end: String? { terminal?["type"]?.string }

    private mutating func addProblem(_ problem: String) {
        if problems.count < 20 { problems.append("job \(job): \(problem)") }
    }

    package mutating func take(_ event: JSON) {
        guard let type = event["type"]?.string, let identifier = event["id"]?.string else {
            return addProblem("not an event: \(event.text)")
        }
        let numbers = identifier.split(separator: "-").compactMap { Int($0) }
        guard numbers.count == 2 else { return addProblem("\(type) has the id \(identifier)") }
        let place = (attempt: numbers[0], sequence: numbers[1])
        if let last, place <= last {
            if live { stale += 1 } else { addProblem("\(type) \(identifier) after \(last.attempt)-\(last.sequence)") }
            return
        }
        if let end { return addProblem("\(type) \(identifier) after the terminal \(end)") }
        let isTerminal = ["finished", "interrupted", "failed"].contains(type)
        checkOrder(type, place, isTerminal)
        last = place
        events.append(event)
        types.append(type)
        checkContent(type, event)
        guard isTerminal else { return }
        terminal = event
        let usage = event["usage"]
        if usage?["prompt_tokens"]?.integer == nil || usage?["completion_tokens"]?.integer == nil || usage?["estimated"]?.bool == nil {
            addProblem("\(type) has the usage \(usage?.text ?? "none")")
        }
        if type == "finished", let whole, text != whole {
            addProblem("finished with \(text.utf8.count) of \(whole.utf8.count) bytes of text")
        }
    }

    private mutating func checkOrder(_ type: String, _ place: (attempt: Int, sequence: Int), _ isTerminal: Bool) {
        if place.attempt == last?.attempt {
            if place.sequence != last.map({ $0.sequence + 1 }) { addProblem("a gap before \(type) \(place.attempt)-\(place.sequence)") }
            if place.attempt > 1, place.sequence == 1, !isTerminal, type != "resumed", type != "restarted" {
                addProblem("\(type) where resumed or restarted was due")
            }
            return
        }
        attempts.append(place.attempt)
        let due = (last?.attempt ?? 0) + 1
        if isTerminal {
            if place != (due, 0) { addProblem("\(type) \(place.attempt)-\(place.sequence) of no attempt where \(due)-0 was due") }
        } else if type != "started" || place.sequence != 0 || place.attempt < due {
            addProblem("attempt \(place.attempt) begins with \(type) \(place.attempt)-\(place.sequence)")
        }
    }

    private mutating func checkContent(_ type: String, _ event: JSON) {
        switch type {
        case "text":
            guard let piece = event["text"]?.string, !piece.isEmpty else { return addProblem("a text event without text: \(event.text)") }
            text += piece
            if let whole, !whole.hasPrefix(text) { addProblem("the text goes wrong at …\(text.suffix(40))") }
        case "reasoning": reasoning += event["text"]?.string ?? ""
        case "restarted":
            text = ""
            reasoning = ""
        case "resumed":
            if event["text_offset"]?.integer != text.utf8.count {
                addProblem("resumed at \(event["text_offset"]?.text ?? "nowhere") where \(text.utf8.count) bytes were logged")
            }
        case "interrupted":
            let phases: Set = ["queued", "claimed", "connecting", "waiting", "streaming", "speaking", "backoff"]
            if !phases.contains(event["phase"]?.string ?? "") { addProblem("interrupted in the phase \(event["phase"]?.text ?? "none")") }
            if event["reason"]?.string == nil { addProblem("interrupted without a reason") }
        case "failed":
            if FailureCode(rawValue: event["code"]?.string ?? "") == nil {
                addProblem("failed with the code \(event["code"]?.text ?? "none")")
            }
            if event["message"]?.string == nil || event["retryable"]?.bool == nil { addProblem("failed without message or retryable") }
        case "started":
            if event["worker"]?.string?.isEmpty ?? true { addProblem("started without a worker") }
        case "upstream", "tool_call", "audio", "finished": break
        default: addProblem("unknown event \(type)")
        }
    }
}
