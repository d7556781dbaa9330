import Contract
import JSONCodec
import Support

/// An item of a Realtime conversation.
struct RealtimeItem: Sendable, Equatable {
    enum Role: String, Sendable { case system, user, assistant }

    enum Part: Sendable, Equatable {
        case text(String)
        case image(url: String, detail: String?)
        /// What the user said; nil: the audio was not recognized yet.
        case audio(transcript: String?)
        /// An answer as it is spoken.
        case speech(transcript: String)
    }

    enum Kind: Sendable, Equatable {
        case message(Role, [Part])
        case call(Conversation.Call)
        case output(callID: String, String)
    }

    enum Status: String, Sendable { case completed, incomplete, inProgress = "in_progress" }

    let id: String
    var kind: Kind
    var status = Status.completed
    /// Audio of a user's message that was not recognized yet, as `RealtimeInput` stores it.
    var audio: [UInt8] = []
    /// Which parts of the answer its audio speaks; nil for items without speech.
    var spoken: SpokenText?

    /// Bytes that count towards the conversation's limit; audio is counted apart.
    var size: Int {
        let content: Int
        switch kind {
        case .message(_, let parts):
            content = parts.reduce(0) { size, part in
                switch part {
                case .text(let text), .speech(let text): size + text.utf8.count
                case .image(let url, _): size + url.utf8.count
                case .audio(let transcript): size + (transcript?.utf8.count ?? 0)
                }
            }
        case .call(let call): content = call.id.utf8.count + call.name.utf8.count + call.arguments.utf8.count
        case .output(let id, let text): content = id.utf8.count + text.utf8.count
        }
        return content + id.utf8.count + 24 * (spoken?.sentences.count ?? 0) + 64
    }

    init(id: String, kind: Kind, status: Status = .completed) {
        self.id = id
        self.kind = kind
        self.status = status
    }

    // MARK: from clients

    /// Reads the `item` of `conversation.item.create`, or an element of a response's `input`.
    /// - Parameters:
    ///   - id: of an item without one.
    ///   - recognizes: whether audio is accepted.
    /// - Throws: 400 with the name of the field that is invalid or not supported.
    init(_ json: JSON, at path: String = "item", id generated: String, recognizes: Bool) throws(HTTPErrorResponse) {
        var item = try FieldReader(json, at: path)
        id = try item.string("id") ?? generated
        guard (1...64).contains(id.utf8.count) else { throw item.invalid("id", "a string of 1 to 64 bytes") }
        item.ignore("object", "status", "phase")
        kind = .message(.user, [])
        switch try item.string("type") {
        case "message":
            guard let role = try item.string("role").flatMap(Role.init) else { throw item.invalid("role", "user, assistant or system") }
            guard let list = try item.array("content"), !list.isEmpty else {
                throw item.invalid("content", "an array of at least one part")
            }
            var parts: [Part] = []
            for (index, json) in list.enumerated() {
                var part = try FieldReader(json, at: item.name(of: "content[\(index)]"))
                parts.append(try Self.part(&part, role, recognizes: recognizes, audio: &audio))
                try part.finish()
            }
            kind = .message(role, parts)
        case "function_call":
            let arguments = try item.string("arguments") ?? "{}"
            guard (try? JSON(parsing: arguments)) != nil else { throw item.invalid("arguments", "JSON text") }
            let callID = try item.string("call_id") ?? "call_" + id
            kind = .call(Conversation.Call(id: callID, name: try item.requiredString("name"), arguments: arguments))
        case "function_call_output":
            guard let output = try item.string("output") else { throw item.invalid("output", "a string") }
            kind = .output(callID: try item.requiredString("call_id"), output)
        default: throw item.unsupported("type")
        }
        try item.finish()
    }

    private static func part(
        _ part: inout FieldReader, _ role: Role, recognizes: Bool, audio: inout [UInt8]
    ) throws(HTTPErrorResponse) -> Part {
        func text() throws(HTTPErrorResponse) -> String {
            guard let text = try part.string("text") else { throw part.invalid("text", "a string") }
            return text
        }
        switch (role, try part.string("type")) {
        case (.system, "input_text"), (.user, "input_text"), (.assistant, "output_text"), (.assistant, "text"): return .text(try text())
        case (.assistant, "output_audio"), (.assistant, "audio"):
            part.ignore("audio")
            return .text(try part.string("transcript") ?? "")
        case (.user, "input_image"):
            return .image(url: try part.requiredString("image_url"), detail: try part.string("detail"))
        case (.user, "input_audio"):
            let transcript = try part.string("transcript")
            guard let encoded = try part.string("audio") else {
                guard let transcript else { throw part.invalid("audio", "a string in base64") }
                return .audio(transcript: transcript)
            }
            guard transcript == nil else { return .audio(transcript: transcript) }
            guard recognizes else { throw HTTPErrorResponse.notCarried(part.name(of: "audio")) }
            var bytes: [UInt8] = []
            guard Base64.decode(encoded, into: &bytes) else { throw part.invalid("audio", "a string in base64") }
            var input = RealtimeInput(maximum: .max)
            _ = input.append(bytes) { _, _ in }
            audio += input.take()
            return .audio(transcript: nil)
        default: throw part.unsupported("type")
        }
    }

    // MARK: JSON

    var json: JSON {
        var item = JSONObject([.init(name: "id", value: .string(id)), .init(name: "object", value: "realtime.item")])
        item["status"] = .string(status.rawValue)
        switch kind {
        case .message(let role, let parts):
            item["type"] = "message"
            item["role"] = .string(role.rawValue)
            item["content"] = .array(parts.map { Self.json($0, role) })
        case .call(let call):
            item["type"] = "function_call"
            item["name"] = .string(call.name)
            item["call_id"] = .string(call.id)
            item["arguments"] = .string(call.arguments)
        case .output(let callID, let text):
            item["type"] = "function_call_output"
            item["call_id"] = .string(callID)
            item["output"] = .string(text)
        }
        return .object(item)
    }

    private static func json(_ part: Part, _ role: Role) -> JSON {
        switch part {
        case .text(let text): ["type": role == .assistant ? "output_text" : "input_text", "text": .string(text)]
        case .image(let url, let detail):
            detail.map { ["type": "input_image", "image_url": .string(url), "detail": .string($0)] }
                ?? ["type": "input_image", "image_url": .string(url)]
        case .audio(let transcript): ["type": "input_audio", "transcript": transcript.map(JSON.string) ?? .null]
        case .speech(let transcript): ["type": "output_audio", "transcript": .string(transcript)]
        }
    }
}

extension RealtimeItem {
    /// Sets what was recognized in the item's audio.
    mutating func setTranscript(_ text: String) {
        guard case .message(let role, var parts) = kind, let index = parts.lastIndex(of: .audio(transcript: nil)) else { return }
        parts[index] = .audio(transcript: text)
        // Several parts of audio are recognized together.
        for other in parts.indices where parts[other] == .audio(transcript: nil) { parts[other] = .audio(transcript: "") }
        kind = .message(role, parts)
    }
}

/// The items of a Realtime conversation in their order, limited in number and bytes. Drops the oldest first.
struct RealtimeItems: Sendable {
    /// Maximum items.
    static let maximumCount = 1_000

    private(set) var items: [RealtimeItem] = []
    private(set) var size = 0
    private let maximumSize: Int

    init(maximumSize: Int) { self.maximumSize = maximumSize }

    /// Bytes of the audio that was not recognized yet.
    var audioSize: Int { items.reduce(0) { $0 + $1.audio.count } }
    /// The items whose audio was not recognized yet.
    var unrecognized: [RealtimeItem] { items.filter { !$0.audio.isEmpty } }

    func item(_ id: String) -> RealtimeItem? { items.first { $0.id == id } }

    /// Whether a function call with this id is in the conversation.
    func hasCall(_ id: String) -> Bool { items.contains { if case .call(let call) = $0.kind { call.id == id } else { false } } }

    /// Adds an item.
    /// - Parameter previous: the item before it; `root` for the beginning, nil for the end.
    /// - Returns: the id of the item before it, nil at the beginning.
    /// - Throws: when the id is taken, the item too large or `previous` unknown.
    mutating func insert(_ item: RealtimeItem, after previous: String? = nil) throws(RealtimeError) -> String? {
        guard self.item(item.id) == nil else {
            throw RealtimeError("item_already_exists", "there is already an item \"\(item.id)\"", parameter: "item.id")
        }
        guard item.size <= maximumSize else {
            throw RealtimeError("item_too_large", "the item is larger than \(maximumSize) bytes", parameter: "item")
        }
        var index = items.count
        if previous == "root" {
            index = 0
        } else if let previous {
            guard let place = items.firstIndex(where: { $0.id == previous }) else { throw Self.unknown(previous, "previous_item_id") }
            index = place + 1
        }
        items.insert(item, at: index)
        size += item.size
        let before = index > 0 ? items[index - 1].id : nil
        trim()
        return before
    }

    /// Replaces an item by its final form. An item that was deleted meanwhile stays deleted.
    mutating func update(_ id: String, _ body: (inout RealtimeItem) -> Void) {
        guard let index = items.firstIndex(where: { $0.id == id }) else { return }
        size -= items[index].size
        body(&items[index])
        size += items[index].size
        trim()
    }

    /// - Returns: whether there was such an item.
    mutating func delete(_ id: String) -> Bool {
        guard let index = items.firstIndex(where: { $0.id == id }) else { return false }
        size -= items.remove(at: index).size
        return true
    }

    static func unknown(_ id: String, _ parameter: String = "item_id") -> RealtimeError {
        RealtimeError("item_not_found", "there is no item \"\(id.cut(toBytes: 64))\"", parameter: parameter)
    }

    private mutating func trim() {
        while items.count > Self.maximumCount || size > maximumSize, items.count > 1 { size -= items.removeFirst().size }
    }

    // MARK: messages

    /// The items as messages. Results follow their calls; a call without a result gets one that says so. Audio that was not recognized
    /// yet is an empty user message at the end, which the worker completes.
    static func messages(of items: [RealtimeItem]) -> [Conversation.Message] {
        var messages: [Conversation.Message] = []
        /// The calls without a result, with the message that makes them; and the results by that message.
        var open: [String: Int] = [:]
        var results: [Int: [Conversation.Message]] = [:]
        var hasAudio = false
        for item in items {
            switch item.kind {
            case .message(let role, let parts):
                hasAudio = hasAudio || !item.audio.isEmpty
                let content = parts.compactMap(Self.content)
                guard !content.isEmpty else { continue }
                switch role {
                case .system: messages.append(.system(content))
                case .user: messages.append(.user(content))
                case .assistant: ResponseItems.append(.assistant(content, calls: []), to: &messages)
                }
            case .call(let call):
                ResponseItems.append(.assistant([], calls: [call]), to: &messages)
                open[call.id] = messages.count - 1
            case .output(let callID, let text):
                guard let index = open.removeValue(forKey: callID) else { continue }
                results[index, default: []].append(.toolResult(callID: callID, [.text(text)]))
            }
        }
        var complete: [Conversation.Message] = []
        for (index, message) in messages.enumerated() {
            complete.append(message)
            guard case .assistant(_, let calls) = message, !calls.isEmpty else { continue }
            complete += results[index] ?? []
            for call in calls where open[call.id] == index {
                complete.append(.toolResult(callID: call.id, [.text(ResponseItems.noResult)]))
            }
        }
        if hasAudio { complete.append(.user([.text("")])) }
        return complete
    }

    private static func content(_ part: RealtimeItem.Part) -> Conversation.Part? {
        switch part {
        case .text(""), .audio(nil), .audio(""?), .speech(""): nil
        case .text(let text), .audio(let text?), .speech(let text): .text(text)
        case .image(let url, let detail): .image(url: url, detail: detail)
        }
    }
}
