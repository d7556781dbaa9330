import JSONCodec

/// The changes that a REQUEST makes to its session's settings: `function_calling_op`, `update_session`, `require_tts` and `enable_srs`.
struct SessionUpdate: Sendable {
    enum Operation: String, Sendable {
        case replace = "REPLACE"
        case add = "ADD"
        case update = "UPDATE"
        case delete = "DELETE"
    }

    private var functions: (operation: Operation, list: [FunctionDefinition])?
    /// The members of `update_session`; validated by `applied`.
    private var members: JSONObject?
    private var requiresSpeech: Bool?
    private var enablesRetrieval: Bool?

    /// Whether the request itself, and not its `update_session`, turns the voice on.
    var asksForSpeech: Bool { requiresSpeech == true }
    /// Whether `update_session` turns the voice on or off.
    var setsSpeech: Bool {
        members?.members.contains { ["require_tts", "requireTTS", "requireTts"].contains($0.name) && !$0.value.isNull } ?? false
    }

    var isEmpty: Bool { functions == nil && members == nil && requiresSpeech == nil && enablesRetrieval == nil }

    /// Reads the changes of a REQUEST's payload.
    /// - Throws: MALFORMED_PAYLOAD.
    init(_ payload: JSONObject) throws(ProtocolError) {
        if let json = payload.present("function_calling_op") {
            guard let operation = json.string.flatMap(Operation.init) else {
                throw .malformed("\"function_calling_op\" must be REPLACE, ADD, UPDATE or DELETE")
            }
            guard let list = payload.present("function_calling") else {
                throw .malformed("\"function_calling_op\" needs \"function_calling\"")
            }
            functions = (operation, try FunctionDefinition.list(list))
        } else if let list = payload.present("function_calling") {
            functions = (.replace, try FunctionDefinition.list(list))
        }
        if let update = payload.present("update_session") {
            guard let object = update.object else { throw .malformed("\"update_session\" must be an object") }
            members = object.members.isEmpty ? nil : object
        }
        requiresSpeech = try payload.flag("require_tts")
        enablesRetrieval = try payload.flag("enable_srs")
    }

    /// Applies all changes or none.
    /// - Parameter maximumSize: maximum bytes of the settings as JSON.
    /// - Throws: MALFORMED_PAYLOAD, PAYLOAD_TOO_LARGE.
    func applied(to settings: SessionSettings, maximumSize: Int = SessionSettings.defaultMaximumSize) throws(ProtocolError)
        -> SessionSettings
    {
        var result = settings
        if let functions { Self.apply(functions.operation, functions.list, to: &result.functions) }
        for member in members?.members ?? [] { try Self.apply(member, to: &result) }
        if let requiresSpeech { result.requiresSpeech = requiresSpeech }
        if let enablesRetrieval { result.enablesRetrieval = enablesRetrieval }
        guard result.functions.count <= FunctionDefinition.maximumCount else {
            throw .malformed("the session would have more than \(FunctionDefinition.maximumCount) functions")
        }
        try result.requireSize(maximumSize)
        return result
    }

    /// Applies one member of `update_session`, in either spelling. Null changes nothing.
    private static func apply(_ member: JSONObject.Member, to settings: inout SessionSettings) throws(ProtocolError) {
        let value = member.value
        func flag() throws(ProtocolError) -> Bool {
            guard let flag = value.bool else { throw .malformed("\"update_session.\(member.name)\" must be true or false") }
            return flag
        }
        switch member.name {
        case "system_prompt", "systemPrompt": if !value.isNull { try settings.setSystemPrompt(value, isStrict: true) }
        case "scene_context", "sceneContext": if !value.isNull { try settings.setScene(value, isStrict: true) }
        case "function_calling", "functionCalling": if !value.isNull { settings.functions = try FunctionDefinition.list(value) }
        case "require_tts", "requireTTS", "requireTts": if !value.isNull { settings.requiresSpeech = try flag() }
        case "enable_srs", "enableSRS", "enableSrs": if !value.isNull { settings.enablesRetrieval = try flag() }
        case "reasoning": if !value.isNull { settings.wantsReasoning = try flag() }
        case "auto_supersede", "autoSupersede": if !value.isNull { settings.supersedes = try flag() }
        default: throw .unknownField("update_session.\(member.name)")
        }
    }

    /// ADD and UPDATE both replace a definition of the same name, or append it.
    private static func apply(_ operation: Operation, _ list: [FunctionDefinition], to functions: inout [FunctionDefinition]) {
        switch operation {
        case .replace: functions = list
        case .add, .update:
            var indexes: [String: Int] = [:]
            for (index, function) in functions.enumerated() where indexes[function.name] == nil { indexes[function.name] = index }
            for definition in list {
                if let index = indexes[definition.name] {
                    functions[index] = definition
                } else {
                    indexes[definition.name] = functions.count
                    functions.append(definition)
                }
            }
        case .delete:
            let names = Set(list.map(\.name))
            functions.removeAll { names.contains($0.name) }
        }
    }
}
