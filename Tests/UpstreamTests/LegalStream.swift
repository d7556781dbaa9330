import Contract
import TestSupport

@testable import Upstream

/// A random answer, written in one of the forms in which upstreams send it.
struct LegalStream {
    struct Call {
        var id: String
        var name: String
        /// A JSON object that is not empty.
        var arguments: String
    }

    let kind: UpstreamConfiguration.Kind
    /// The parts of text and reasoning, in order. The calls follow them.
    private(set) var words: [(text: String, isReasoning: Bool)] = []
    private(set) var calls: [Call] = []
    private(set) var isCut = false
    private(set) var contentType = "text/event-stream"
    private(set) var body: [UInt8] = []

    var text: String { words.reduce(into: "") { if !$1.isReasoning { $0 += $1.text } } }
    var reasoning: String { words.reduce(into: "") { if $1.isReasoning { $0 += $1.text } } }
    var reason: FinishReason { isCut ? .length : calls.isEmpty ? .stop : .toolCalls }

    init(_ kind: UpstreamConfiguration.Kind, seed: UInt64) {
        self.kind = kind
        var random = LegalRandom(seed: seed)
        for _ in 0..<random.number(0...4) { words.append((random.words(), random.chance(of: 3))) }
        for number in 0..<random.number(words.isEmpty ? 1...3 : 0...3) {
            calls.append(Call(id: "call_\(number)x", name: random.pick(["f", "g"]), arguments: random.arguments()))
        }
        isCut = random.chance(of: 4)
        if kind == .ollama {
            contentType = "application/x-ndjson"
        } else if random.chance(of: 5) {
            contentType = random.pick(["application/json", "", "text/event-stream"])
            body = Array((random.pick(["", "\n\n", " "]) + document(&random)).utf8)
            return
        }
        let frames = kind == .anthropic ? anthropicFrames(&random) : messageFrames(&random)
        body = Array(framed(frames, &random).utf8)
    }

    // MARK: streams of messages: OpenAI, DashScope, Ollama

    /// A frame with a message or delta.
    private func frame(_ message: String, finish: String?, _ random: inout LegalRandom) -> String {
        let reason = finish.map { "\"\($0)\"" } ?? random.pick(kind == .dashscope ? ["\"null\"", "null"] : ["null", "\"\""])
        let usage = random.pick(["", #","usage":null"#, #","usage":[]"#, #","usage":{"prompt_tokens":"3","input_tokens":2.5}"#])
        return switch kind {
        case .dashscope: #"{"output":{"choices":[{"message":\#(message),"finish_reason":\#(reason)}]}\#(usage)}"#
        case .ollama: #"{"message":\#(message),"done":\#(finish != nil)\#(finish == nil ? "" : ",\"done_reason\":\(reason)")}"#
        default: #"{"choices":[{"index":0,"delta":\#(message),"finish_reason":\#(reason)}]\#(usage)}"#
        }
    }

    private func messageFrames(_ random: inout LegalRandom) -> [String] {
        var frames: [String] = []
        func add(_ message: String, finish: String? = nil) { frames.append(frame(message, finish: finish, &random)) }
        // A translator may stamp a reason on a frame that is not the last.
        if random.chance(of: 6) { add("{}", finish: "stop") }
        if random.chance(of: 2) { add(#"{"role":"assistant","content":"","tool_calls":null}"#) }
        for part in words {
            for piece in random.pieces(of: part.text) {
                let isPart = random.chance(of: 4)
                switch (part.isReasoning, isPart) {
                case (false, false): add(#"{"content":\#(piece),"reasoning_content":null}"#)
                case (false, true): add(#"{"content":[{"type":"text","text":\#(piece)}]}"#)
                case (true, true): add(#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":\#(piece)}]}]}"#)
                case (true, false):
                    switch random.number(0...2) {
                    case 0: add(#"{"content":null,"reasoning":\#(piece),"reasoning_content":\#(piece)}"#)
                    case 1: add(#"{"reasoning":\#(piece)}"#)
                    default: add(#"{"\#(kind == .ollama ? "thinking" : "reasoning_content")":\#(piece)}"#)
                    }
                }
            }
        }
        for fragments in kind == .ollama ? completeCalls(&random) : callFragments(&random) {
            add("{\"tool_calls\":[\(fragments.joined(separator: ","))]}")
        }
        let reason = isCut ? random.pick(["length", "max_tokens"]) : calls.isEmpty || random.chance(of: 2) ? "stop" : "tool_calls"
        add(random.pick(["{}", #"{"content":""}"#]), finish: reason)
        if kind == .openai {
            if random.chance(of: 2) { frames.append(#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#) }
            if random.chance(of: 2) { frames.append("[DONE]") }
        }
        return frames
    }

    /// The calls of whole messages, each element the calls of one message.
    private func completeCalls(_ random: inout LegalRandom) -> [[String]] {
        let written = calls.map { call in
            let id = random.chance(of: 2) ? #""id":"\#(call.id)","# : ""
            let arguments = random.chance(of: 2) ? call.arguments : random.quoted(Array(call.arguments.utf16))
            return #"{\#(id)"function":{"name":"\#(call.name)","arguments":\#(arguments)}}"#
        }
        return random.chance(of: 2) ? written.isEmpty ? [] : [written] : written.map { [$0] }
    }

    /// How the fragments of calls name their call.
    private enum Naming: CaseIterable {
        case index, textIndex, indexAndID, indexAndName, indexFromOne, indexZero, idOnly, idThenNothing, nothing
    }

    /// The calls in fragments, each element the fragments of one message.
    private func callFragments(_ random: inout LegalRandom) -> [[String]] {
        let naming = random.pick(Naming.allCases)
        var perCall: [[String]] = []
        for (number, call) in calls.enumerated() {
            var arguments = random.pieces(of: call.arguments)
            if naming == .nothing || random.chance(of: 5) { arguments = [random.chance(of: 2) ? call.arguments : arguments.joinedJSON] }
            if arguments.count > 1, random.chance(of: 2) { arguments.insert("\"\"", at: 0) }
            perCall.append(
                arguments.enumerated().map { position, piece in
                    let isHead = position == 0
                    var members: [String] = []
                    switch naming {
                    case .index, .indexAndID, .indexAndName: members.append("\"index\":\(number)")
                    case .textIndex: members.append("\"index\":\"\(number)\"")
                    case .indexFromOne: members.append("\"index\":\(number + 1)")
                    case .indexZero: members.append("\"index\":0")
                    case .idOnly, .idThenNothing, .nothing: break
                    }
                    if naming != .nothing, isHead || naming == .indexAndID || naming == .idOnly { members.append("\"id\":\"\(call.id)\"") }
                    let name = isHead || naming == .indexAndName ? "\"name\":\"\(call.name)\"," : ""
                    members.append(#""type":"function","function":{\#(name)"arguments":\#(piece)}"#)
                    return "{\(members.joined(separator: ","))}"
                })
        }
        switch naming {
        // These tell fragments of several calls apart.
        case .index, .textIndex, .indexAndID, .indexAndName, .indexFromOne, .idOnly:
            guard random.chance(of: 2) else { break }
            var mixed: [[String]] = []
            // The head of each call comes in the order of the calls.
            for position in 0..<(perCall.map(\.count).max() ?? 0) {
                for fragments in perCall where position < fragments.count { mixed.append([fragments[position]]) }
            }
            return mixed
        default: break
        }
        let inTurn = perCall.flatMap { $0.map { [$0] } }
        return random.chance(of: 4) && perCall.allSatisfy { $0.count == 1 } && !inTurn.isEmpty ? [inTurn.flatMap { $0 }] : inTurn
    }

    // MARK: Anthropic

    private func anthropicFrames(_ random: inout LegalRandom) -> [String] {
        var frames: [String] = []
        if random.chance(of: 2) { frames.append(#"{"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}}}"#) }
        var index = 0
        for part in words {
            let type = part.isReasoning ? "thinking" : "text"
            if random.chance(of: 2) {
                frames.append(#"{"type":"content_block_start","index":\#(index),"content_block":{"type":"\#(type)","\#(type)":""}}"#)
            }
            for piece in random.pieces(of: part.text) {
                if random.chance(of: 6) { frames.append(#"{"type":"ping"}"#) }
                frames.append(#"{"type":"content_block_delta","index":\#(index),"delta":{"type":"\#(type)_delta","\#(type)":\#(piece)}}"#)
            }
            if random.chance(of: 2) { frames.append(#"{"type":"content_block_stop","index":\#(index)}"#) }
            index += 1
        }
        for call in calls {
            let isWhole = random.chance(of: 3)
            let input = isWhole ? call.arguments : "{}"
            frames.append(
                #"{"type":"content_block_start","index":\#(index),"content_block":{"type":"tool_use","id":"\#(call.id)","#
                    + #""name":"\#(call.name)","input":\#(input)}}"#)
            if !isWhole || random.chance(of: 2) {
                for piece in random.pieces(of: call.arguments) {
                    frames.append(#"{"type":"content_block_delta","index":\#(index),"delta":{"partial_json":\#(piece)}}"#)
                }
            }
            index += 1
        }
        let reason = isCut ? "max_tokens" : calls.isEmpty || random.chance(of: 2) ? "end_turn" : "tool_use"
        frames.append(#"{"type":"message_delta","delta":{"stop_reason":"\#(reason)"},"usage":{"output_tokens":9}}"#)
        if random.chance(of: 2) { frames.append(#"{"type":"message_stop"}"#) }
        return frames
    }

    // MARK: documents

    /// The answer as one JSON document.
    private func document(_ random: inout LegalRandom) -> String {
        let usage = random.pick(["", #","usage":[]"#, #","usage":{"prompt_tokens":1,"completion_tokens":2}"#])
        if kind == .anthropic {
            var blocks = words.map {
                #"{"type":"\#($0.isReasoning ? "thinking" : "text")","\#($0.isReasoning ? "thinking" : "text")":\#(random.quoted(Array($0.text.utf16)))}"#
            }
            blocks += calls.map { #"{"type":"tool_use","id":"\#($0.id)","name":"\#($0.name)","input":\#($0.arguments)}"# }
            let reason = isCut ? "max_tokens" : calls.isEmpty ? "end_turn" : "tool_use"
            return #"{"type":"message","content":[\#(blocks.joined(separator: ","))],"stop_reason":"\#(reason)"\#(usage)}"#
        }
        let isParts = random.chance(of: 3)
        var members: [String] = []
        if isParts {
            let parts = words.map { part in
                part.isReasoning
                    ? #"{"type":"thinking","thinking":\#(random.quoted(Array(part.text.utf16)))}"#
                    : #"{"type":"text","text":\#(random.quoted(Array(part.text.utf16)))}"#
            }
            members.append("\"content\":[\(parts.joined(separator: ","))]")
        } else {
            members.append("\"content\":" + (text.isEmpty ? "null" : random.quoted(Array(text.utf16))))
            if !reasoning.isEmpty { members.append("\"reasoning_content\":" + random.quoted(Array(reasoning.utf16))) }
        }
        let calls = completeCalls(&random).flatMap { $0 }
        if !calls.isEmpty { members.append("\"tool_calls\":[\(calls.joined(separator: ","))]") }
        let reason = isCut ? "length" : "stop"
        let choice = #"{"message":{\#(members.joined(separator: ","))},"finish_reason":"\#(reason)"}"#
        return kind == .dashscope ? #"{"output":{"choices":[\#(choice)]}\#(usage)}"# : #"{"choices":[\#(choice)]\#(usage)}"#
    }

    // MARK: framing

    private func framed(_ frames: [String], _ random: inout LegalRandom) -> String {
        guard kind != .ollama else {
            // Between objects, and between the members of one.
            let end = random.pick(["\n", "\r\n", "", " "])
            let space = random.pick(["", "", "\n", "\r\n\t "])
            return frames.map { "{\(space)" + $0.dropFirst().replacing(",\"done\"", with: "\(space),\"done\"") }.joined(separator: end)
                + random.pick(["", end])
        }
        let lineEnd = random.pick(["\n", "\n", "\r\n", "\r"])
        let field = random.pick(["data: ", "data:"])
        var text = random.pick(["", "", "\u{FEFF}", ": OPENROUTER PROCESSING\(lineEnd)\(lineEnd)"])
        for (number, frame) in frames.enumerated() {
            if random.chance(of: 8) { text += ": keep-alive\(lineEnd)" + random.pick(["", lineEnd]) }
            if random.chance(of: 8) { text += "id: \(number)\(lineEnd)event: result\(lineEnd)" }
            text += field + frame + lineEnd
            // The last event may lack its blank line.
            if number < frames.count - 1 || random.chance(of: 2) { text += lineEnd }
        }
        return text
    }
}
