import Contract

/// A job's answer in a form that belongs to no API: its parts in order, usage and ending. A state machine without I/O; the codec of an API
/// encodes the answer, or its changes for a stream.
struct Answer: Sendable, Equatable {
    /// A part of the answer.
    struct Part: Sendable, Equatable {
        enum Kind: Sendable, Equatable { case reasoning, text, call(id: String, name: String) }

        let kind: Kind
        /// The text; for a call its arguments as JSON text.
        var text: String
        /// What its provider needs to take a block of reasoning back.
        var mark: ReasoningMark?

        /// Whether it is reasoning that only its provider can read.
        var isRedacted: Bool { if case .redacted? = mark { true } else { false } }
    }

    enum Ending: Sendable, Equatable {
        case finished(FinishReason)
        case interrupted(Interruption)
        case failed(Failure)
    }

    /// What an event changed, in the order in which a stream reports it. Each part is opened, extended and closed before the next one.
    enum Change: Sendable, Equatable {
        /// A part began. Its text follows as `extended`.
        case opened(Part.Kind)
        case extended(Part.Kind, String)
        /// - Parameter isWhole: whether the model had completed the part.
        case closed(Part, isWhole: Bool)
        /// The open block of reasoning got its signature, and closes next.
        case marked(String)
        /// A part was added that only its provider can read.
        case inserted(Part)
        /// Generation began anew: the parts so far, the open one included, are no longer part of the answer.
        case retracted
        case ended(Ending)
    }

    /// The model that answers: the requested one until an upstream reports its own.
    private(set) var model: String
    private(set) var parts: [Part] = []
    private(set) var usage = Usage.none
    /// Nil until the terminal event.
    private(set) var ending: Ending?
    /// The stop sequence that ended the answer, as the upstream reports it.
    private(set) var stopSequence: String?
    /// Whether the API can express `ReasoningMark`.
    private let keepsMarks: Bool
    /// The number of parts that were retracted: the number of the first part in a stream, which cannot take numbers back.
    private(set) var firstIndex = 0
    /// Whether the model had completed the last part.
    private(set) var isWhole = true
    /// Whether the last part may grow.
    private var isOpen = false
    /// Bytes of the text parts in UTF-8.
    private var textSize = 0

    /// - Parameter keepsMarks: whether the API can express what a provider needs to take reasoning back.
    init(model: String, keepsMarks: Bool = false) {
        self.model = model
        self.keepsMarks = keepsMarks
    }

    /// Whether the answer contains a tool call.
    var hasCalls: Bool { parts.contains { if case .call = $0.kind { true } else { false } } }

    /// Adds an event. No event may follow the terminal one.
    /// - Parameter report: receives the changes in order.
    mutating func take(_ event: GenerationEvent, report: (Change) -> Void = { _ in }) {
        switch event {
        case .started, .audio, .transcript, .retrieved: break
        case .upstream(_, let model): if !model.isEmpty { self.model = model }
        case .restarted: restart(keeping: "", report)
        case .resumed(let offset):
            // Live output can be ahead of the log: discard what the new worker will generate again.
            guard textSize > offset || hasCalls else { break }
            let text = parts.reduce(into: "") { if $1.kind == .text { $0 += $1.text } }
            restart(keeping: String(decoding: text.utf8.prefix(offset), as: UTF8.self), report)
        case .text(let text): extend(.text, text, report)
        case .reasoning(let text): extend(.reasoning, text, report)
        case .reasoningMark(let mark): if keepsMarks { add(mark, report) }
        case .toolCall(let call):
            close(isWhole: true, report)
            open(.call(id: call.callID, name: call.name), report)
            extend(parts[parts.count - 1].kind, call.arguments, report)
            close(isWhole: true, report)
        case .finished(let reason, let usage, let stopSequence):
            self.stopSequence = stopSequence
            end(.finished(reason), usage, report)
        case .interrupted(let interruption): end(.interrupted(interruption), interruption.usage, report)
        case .failed(let failure, let usage): end(.failed(failure), usage, report)
        }
    }

    private mutating func open(_ kind: Part.Kind, _ report: (Change) -> Void) {
        parts.append(Part(kind: kind, text: ""))
        isOpen = true
        report(.opened(kind))
    }

    private mutating func extend(_ kind: Part.Kind, _ text: String, _ report: (Change) -> Void) {
        if !isOpen || parts.last?.kind != kind {
            close(isWhole: true, report)
            open(kind, report)
        }
        guard !text.isEmpty else { return }
        parts[parts.count - 1].text += text
        if kind == .text { textSize += text.utf8.count }
        report(.extended(kind, text))
    }

    private mutating func add(_ mark: ReasoningMark, _ report: (Change) -> Void) {
        switch mark {
        case .signature(let signature):
            extend(.reasoning, "", report)
            parts[parts.count - 1].mark = mark
            report(.marked(signature))
            close(isWhole: true, report)
        case .redacted:
            close(isWhole: true, report)
            parts.append(Part(kind: .reasoning, text: "", mark: mark))
            report(.inserted(parts[parts.count - 1]))
        }
    }

    private mutating func close(isWhole: Bool, _ report: (Change) -> Void) {
        guard isOpen, let part = parts.last else { return }
        isOpen = false
        self.isWhole = isWhole
        report(.closed(part, isWhole: isWhole))
    }

    private mutating func restart(keeping text: String, _ report: (Change) -> Void) {
        guard !parts.isEmpty else { return }
        close(isWhole: false, report)
        report(.retracted)
        firstIndex += parts.count
        parts = []
        isWhole = true
        textSize = 0
        if !text.isEmpty { extend(.text, text, report) }
    }

    private mutating func end(_ ending: Ending, _ usage: Usage, _ report: (Change) -> Void) {
        switch ending {
        case .finished(.stop), .finished(.toolCalls): close(isWhole: true, report)
        default: close(isWhole: false, report)
        }
        self.usage = usage
        self.ending = ending
        report(.ended(ending))
    }
}
