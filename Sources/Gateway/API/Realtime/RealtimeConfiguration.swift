import Contract
import JSONCodec

/// The configuration of a Realtime session, or of one response, which may override a part of it.
struct RealtimeConfiguration: Sendable, Equatable {
    enum Modality: String, Sendable { case text, audio }

    /// Detection of turns by the energy of the audio (`server_vad`).
    struct TurnDetection: Sendable, Equatable {
        /// 0 to 1; a higher one requires louder speech.
        var threshold = 0.5
        /// Milliseconds of audio before the detected speech that belong to the utterance.
        var prefixPadding = 300
        /// Milliseconds of silence that end the utterance.
        var silence = 500
        /// Whether the end of an utterance starts a response.
        var createsResponse = true
        /// Whether the beginning of an utterance interrupts the running response.
        var interruptsResponse = true
    }

    /// Maximum tools, as of a session of the WebSocket protocol.
    private static let toolMaximum = FunctionDefinition.maximumCount
    /// Valid values of `prefix_padding_ms` and `silence_duration_ms`.
    private static let durations = 0...10_000

    var model: String
    var modality = Modality.audio
    var instructions = ""
    var tools: [Conversation.Tool] = []
    var toolChoice = Conversation.ToolChoice.auto
    /// Nil: no limit.
    var maximumTokens: Int?
    var temperature: JSON?
    var allowsParallelCalls: Bool?
    /// The effort of reasoning in OpenAI's terms.
    var effort: String?
    /// Nil: the worker's default.
    var voice: String?
    /// `transcription` as the client sent it; nil: no transcripts of the user's audio are sent.
    var transcription: JSON?
    /// Nil: the client commits the audio buffer.
    var turnDetection: TurnDetection?

    /// - Parameter detectsTurns: whether audio can be recognized, so that turns are detected unless the client chooses otherwise.
    init(model: String, detectsTurns: Bool) {
        self.model = model
        turnDetection = detectsTurns ? TurnDetection() : nil
    }

    // MARK: session.update

    /// Applies the members of a `session` object, in the form of the current API or of its beta version. Changes nothing on failure.
    /// - Parameter setsModel: whether the model may be chosen; a running session keeps its model.
    /// - Throws: 400 with the name of the field that is invalid or not supported.
    mutating func apply(_ json: JSON, setsModel: Bool = false) throws(HTTPErrorResponse) {
        var changed = self
        var session = try FieldReader(json, at: "session")
        if let type = try session.string("type"), type != "realtime" { throw session.unsupported("type") }
        if let model = try session.string("model"), model != changed.model {
            guard setsModel else { throw session.invalid("model", "the model of the session, which cannot change") }
            guard !model.isEmpty, model.utf8.count <= NameLimit.model else {
                throw session.invalid("model", "a string of 1 to \(NameLimit.model) bytes")
            }
            changed.model = model
        }
        try changed.readCommon(&session)
        if var audio = try session.object("audio") { try changed.readAudio(&audio) }
        try changed.readBeta(&session)
        // Where the client's traces are stored, and how long conversations are shortened; both change nothing in an answer here.
        session.ignore("tracing", "object", "id", "expires_at", "client_secret")
        switch session.value("truncation") {
        case nil, .string("auto")?, .object?: break
        default: throw session.unsupported("truncation")
        }
        if let include = try session.array("include"), !include.isEmpty { throw session.unsupported("include") }
        try session.finish()
        self = changed
    }

    /// Applies the overrides of a `response` object.
    /// - Throws: as `apply`. The caller reads the other members and calls `finish`.
    mutating func override(_ response: inout FieldReader) throws(HTTPErrorResponse) {
        try readCommon(&response)
        if var audio = try response.object("audio") {
            if var output = try audio.object("output") { try readOutput(&output) }
            try audio.finish()
        }
        try readBeta(&response)
    }

    /// Reads the members that sessions and responses share.
    private mutating func readCommon(_ body: inout FieldReader) throws(HTTPErrorResponse) {
        if let text = try body.string("instructions") { instructions = text }
        if let value = body.value("output_modalities") ?? body.value("modalities") {
            switch value.array?.compactMap(\.string) {
            case ["text"]?: modality = .text
            case ["audio"]?, ["audio", "text"]?, ["text", "audio"]?: modality = .audio
            default: throw body.invalid("output_modalities", "[\"text\"] or [\"audio\"]")
            }
        }
        body.ignore("modalities")
        if let list = try body.array("tools") { tools = try Self.tools(list, body.name(of: "tools")) }
        switch body.value("tool_choice") {
        case nil: break
        case .string("auto")?: toolChoice = .auto
        case .string("none")?: toolChoice = .none
        case .string("required")?: toolChoice = .required
        case .object(let choice)? where choice["type"] == "function":
            guard let name = choice["name"]?.string else { throw body.invalid("tool_choice.name", "a string") }
            toolChoice = .named(name)
        default: throw body.invalid("tool_choice", "auto, none, required or a function")
        }
        for name in ["max_output_tokens", "max_response_output_tokens"] {
            switch body.value(name) {
            case nil: break
            case .string("inf")?: maximumTokens = nil
            default: maximumTokens = try body.positiveInteger(name)
            }
        }
        if let number = try body.number("temperature") { temperature = number }
        if let flag = try body.flag("parallel_tool_calls") { allowsParallelCalls = flag }
        if var reasoning = try body.object("reasoning") {
            effort = try reasoning.string("effort")
            try reasoning.finish()
        }
        if body.value("prompt") != nil { throw body.unsupported("prompt") }
    }

    private static func tools(_ list: [JSON], _ path: String) throws(HTTPErrorResponse) -> [Conversation.Tool] {
        guard list.count <= toolMaximum else { throw HTTPErrorResponse.invalid("\"\(path)\" has more than \(toolMaximum) entries") }
        var tools: [Conversation.Tool] = []
        for (index, json) in list.enumerated() {
            var tool = try FieldReader(json, at: "\(path)[\(index)]")
            guard try tool.string("type") ?? "function" == "function" else { throw tool.unsupported("type") }
            tools.append(
                Conversation.Tool(
                    name: try tool.requiredString("name"), description: try tool.string("description"),
                    parameters: tool.value("parameters"), strict: try tool.flag("strict")))
            try tool.finish()
        }
        return tools
    }

    private mutating func readAudio(_ audio: inout FieldReader) throws(HTTPErrorResponse) {
        if var input = try audio.object("input") {
            if var format = try input.object("format") { try Self.requirePCM(&format) }
            if let value = input.presentOrNull("transcription") { transcription = try Self.transcription(value, &input) }
            if let value = input.presentOrNull("turn_detection") { turnDetection = try Self.turns(value, &input) }
            if input.value("noise_reduction") != nil { throw input.unsupported("noise_reduction") }
            try input.finish()
        }
        if var output = try audio.object("output") { try readOutput(&output) }
        try audio.finish()
    }

    private mutating func readOutput(_ output: inout FieldReader) throws(HTTPErrorResponse) {
        if var format = try output.object("format") { try Self.requirePCM(&format) }
        try readVoice(&output)
        if let speed = try output.number("speed"), speed.double != 1 { throw output.unsupported("speed") }
        try output.finish()
    }

    private mutating func readVoice(_ body: inout FieldReader) throws(HTTPErrorResponse) {
        guard let value = body.value("voice") else { return }
        guard let name = value.string ?? value["id"]?.string, !name.isEmpty, name.utf8.count <= 64 else {
            throw body.invalid("voice", "a string of 1 to 64 bytes")
        }
        voice = name
    }

    /// Reads the members of the beta version.
    private mutating func readBeta(_ body: inout FieldReader) throws(HTTPErrorResponse) {
        try readVoice(&body)
        for name in ["input_audio_format", "output_audio_format"] {
            if let format = try body.string(name), format != "pcm16" { throw body.unsupported(name) }
        }
        if let value = body.presentOrNull("input_audio_transcription") { transcription = try Self.transcription(value, &body) }
        if let value = body.presentOrNull("turn_detection") { turnDetection = try Self.turns(value, &body) }
        if body.value("input_audio_noise_reduction") != nil { throw body.unsupported("input_audio_noise_reduction") }
        if let speed = try body.number("speed"), speed.double != 1 { throw body.unsupported("speed") }
    }

    /// - Throws: 400 unless the format is 16-bit PCM at 24 kHz.
    private static func requirePCM(_ format: inout FieldReader) throws(HTTPErrorResponse) {
        if let type = try format.string("type"), type != "audio/pcm" { throw format.unsupported("type") }
        if let rate = try format.positiveInteger("rate"), rate != RealtimeInput.clientRate { throw format.invalid("rate", "24000") }
        try format.finish()
    }

    /// - Returns: nil for null.
    private static func transcription(_ value: JSON, _ body: inout FieldReader) throws(HTTPErrorResponse) -> JSON? {
        guard !value.isNull else { return nil }
        var object = try FieldReader(value, at: body.name(of: "transcription"))
        // The workers' recognition has its own model, and takes no prompt.
        object.ignore("model", "prompt", "delay")
        if let language = try object.string("language"), language.utf8.count > 16 { throw object.invalid("language", "at most 16 bytes") }
        try object.finish()
        return value
    }

    /// - Returns: nil for null.
    private static func turns(_ value: JSON, _ body: inout FieldReader) throws(HTTPErrorResponse) -> TurnDetection? {
        guard !value.isNull else { return nil }
        var object = try FieldReader(value, at: body.name(of: "turn_detection"))
        guard try object.string("type") ?? "server_vad" == "server_vad" else { throw object.unsupported("type") }
        var turns = TurnDetection()
        if let number = try object.number("threshold") {
            guard let threshold = number.double, (0...1).contains(threshold) else { throw object.invalid("threshold", "0 to 1") }
            turns.threshold = threshold
        }
        func duration(_ name: String, _ otherwise: Int) throws(HTTPErrorResponse) -> Int {
            guard let value = object.value(name) else { return otherwise }
            guard let number = value.integer, durations.contains(number) else {
                throw object.invalid(name, "\(durations.lowerBound) to \(durations.upperBound)")
            }
            return number
        }
        turns.prefixPadding = try duration("prefix_padding_ms", turns.prefixPadding)
        turns.silence = try duration("silence_duration_ms", turns.silence)
        turns.createsResponse = try object.flag("create_response") ?? true
        turns.interruptsResponse = try object.flag("interrupt_response") ?? true
        if object.value("idle_timeout_ms") != nil { throw object.unsupported("idle_timeout_ms") }
        try object.finish()
        return turns
    }

    // MARK: JSON

    private static let format: JSON = ["type": "audio/pcm", "rate": .integer(RealtimeInput.clientRate)]

    /// The `session` object.
    /// - Parameters:
    ///   - id: nil for a session that was not opened.
    ///   - expires: seconds since 1970.
    func json(id: String?, expires: Int?) -> JSON {
        var session = JSONObject([.init(name: "type", value: "realtime"), .init(name: "object", value: "realtime.session")])
        session["id"] = id.map(JSON.string)
        session["model"] = .string(model)
        session["output_modalities"] = [.string(modality.rawValue)]
        session["instructions"] = .string(instructions)
        session["tools"] = .array(tools.map(Self.json))
        session["tool_choice"] = Self.json(toolChoice)
        session["max_output_tokens"] = maximumTokens.map(JSON.integer) ?? "inf"
        session["tracing"] = .null
        session["truncation"] = "auto"
        session["prompt"] = .null
        session["expires_at"] = expires.map(JSON.integer)
        session["audio"] = [
            "input": [
                "format": Self.format, "transcription": transcription ?? .null, "noise_reduction": .null,
                "turn_detection": turnDetection?.json ?? .null,
            ],
            "output": outputJSON,
        ]
        session["include"] = .null
        return .object(session)
    }

    /// The `audio.output` object.
    var outputJSON: JSON {
        var output = JSONObject([.init(name: "format", value: Self.format)])
        output["voice"] = voice.map(JSON.string)
        output["speed"] = .number("1.0")
        return .object(output)
    }

    private static func json(_ tool: Conversation.Tool) -> JSON {
        var object = JSONObject([.init(name: "type", value: "function"), .init(name: "name", value: .string(tool.name))])
        object["description"] = tool.description.map(JSON.string)
        object["parameters"] = tool.parameters
        return .object(object)
    }

    private static func json(_ choice: Conversation.ToolChoice) -> JSON {
        switch choice {
        case .auto: "auto"
        case .none: "none"
        case .required: "required"
        case .named(let name): ["type": "function", "name": .string(name)]
        }
    }

    /// The language of the user's audio; nil: the worker's default.
    var language: String? { transcription?["language"]?.string }

    /// The request to the model, without messages of the conversation.
    var conversation: Conversation {
        var conversation = Conversation()
        conversation.model = model
        if !instructions.isEmpty { conversation.messages.append(.system([.text(instructions)])) }
        conversation.tools = tools
        conversation.toolChoice = tools.isEmpty || toolChoice == .auto ? nil : toolChoice
        conversation.allowsParallelCalls = tools.isEmpty ? nil : allowsParallelCalls
        conversation.effort = effort
        conversation.maximumTokens = maximumTokens
        if let temperature { conversation.parameters.append(.init(name: "temperature", value: temperature)) }
        return conversation
    }
}

extension RealtimeConfiguration.TurnDetection {
    fileprivate var json: JSON {
        [
            "type": "server_vad", "threshold": .number("\(threshold)"), "prefix_padding_ms": .integer(prefixPadding),
            "silence_duration_ms": .integer(silence), "idle_timeout_ms": .null, "create_response": .bool(createsResponse),
            "interrupt_response": .bool(interruptsResponse),
        ]
    }
}
