@testable import Upstream

/// What a provider can express.
extension RoundTripTalk {
    /// The names of the fields that an adapter may refuse, as its API has nothing for them.
    func refusals(_ kind: UpstreamConfiguration.Kind) -> Set<String> {
        var names: Set<String> = []
        switch kind {
        case .openai: break
        case .dashscope:
            if effort != nil { names.insert("reasoning_effort") }
            if choice == .required { names.insert("tool_choice") }
        case .anthropic:
            if isJSON { names.insert("response_format") }
            if effort == "minimal" { names.insert("reasoning_effort") }
            if temperature == "1.5" { names.insert("temperature") }
        case .ollama:
            if effort == "minimal" { names.insert("reasoning_effort") }
            switch choice {
            case .required?, .named?: names.insert("tool_choice")
            case nil, .auto?, Choice.none?: break
            }
            if isParallel == false { names.insert("parallel_tool_calls") }
            let hasAddress = items.contains {
                guard case .user(let pieces) = $0 else { return false }
                return pieces.contains { if case .image(let url) = $0 { !url.hasPrefix("data:") } else { false } }
            }
            if hasAddress { names.insert("image_url") }
        }
        return names
    }

    /// The conversation as far as the provider has words for it.
    func projected(_ kind: UpstreamConfiguration.Kind) -> RoundTripTalk {
        guard kind != .anthropic else { return projectedForAnthropic }
        var talk = self
        var names: [String: String] = [:]
        let hasImages = items.contains { if case .user(let pieces) = $0 { pieces.count { $0.isImage } > 0 } else { false } }
        talk.items = []
        for group in groups {
            switch group[0] {
            case .user(let pieces):
                let texts = pieces.filter { !$0.isImage }
                let joined = Piece.text(texts.map(\.text).joined())
                switch kind {
                case .ollama: talk.items.append(.user([joined] + pieces.filter(\.isImage)))
                case .dashscope where !hasImages: talk.items.append(.user([joined]))
                default: talk.items.append(.user(pieces))
                }
            case .result(let id, let text, let isError):
                // There is no mark for an error but the text.
                let shown = isError ? "[error]\n" + text : text
                talk.items.append(.result(id: kind == .ollama ? names[id] ?? "" : id, shown, isError: false))
            default:
                // Thoughts go back to the provider that signed them only, and calls follow the text.
                let texts = group.compactMap { if case .said(let text) = $0 { text } else { nil } }
                let joins = kind == .ollama || kind == .dashscope && !hasImages
                talk.items += (joins && texts.count > 1 ? [texts.joined()] : texts).map { .said($0) }
                for item in group {
                    guard case .call(let id, let name, let arguments) = item else { continue }
                    names[id] = name
                    talk.items.append(.call(id: kind == .ollama ? name : id, name: name, arguments: arguments))
                }
            }
        }
        if kind != .openai { talk.user = nil }
        if kind == .ollama {
            if talk.choice == Choice.none { talk.tools = [] }
            (talk.choice, talk.isParallel) = (nil, nil)
        }
        return talk
    }

    private var projectedForAnthropic: RoundTripTalk {
        var talk = self
        talk.maximumTokens = maximumTokens ?? 4_096
        // Anthropic's default, and a member of the choice.
        if isParallel == true { talk.isParallel = nil }
        if isParallel == false { talk.choice = choice ?? .auto }
        return talk
    }
}

extension RoundTripTalk.Piece {
    fileprivate var isImage: Bool { if case .image = self { true } else { false } }
    fileprivate var text: String { if case .text(let text) = self { text } else { "" } }
}
