import Contract
import JSONCodec

/// The settings of a session, from REGISTER and later updates.
struct SessionSettings: Sendable, Hashable {
    /// Default maximum bytes of the settings as JSON (`SLUICE_SESSION_MAX`).
    static let defaultMaximumSize = 64 << 10

    enum Platform: String, Sendable {
        case web = "WEB"
        case app = "APP"
        case miniProgram = "MINI_PROGRAM"
        case tv = "TV"
    }

    var platform = Platform.web
    var requiresSpeech = false
    var enablesRecognition = false
    /// Whether reasoning text is sent to the client.
    var wantsReasoning = false
    var functions: [FunctionDefinition] = []
    var roleDescription = ""
    var responseRequirements = ""
    var sceneDescription = ""

    /// The system message: the non-empty descriptions, separated by blank lines; nil when all are empty.
    var systemMessage: String? {
        let parts = [roleDescription, responseRequirements, sceneDescription].filter { !$0.isEmpty }
        return parts.isEmpty ? nil : parts.joined(separator: "\n\n")
    }

    /// Sets the system prompt from `{role_description, response_requirements}`, or from a string that is the role description.
    /// - Throws: MALFORMED_PAYLOAD.
    mutating func setSystemPrompt(_ json: JSON) throws(ProtocolError) {
        if let text = json.string {
            (roleDescription, responseRequirements) = (text, "")
            return
        }
        guard let object = json.object else { throw .malformed("the system prompt must be an object") }
        roleDescription = try Self.text(object, "role_description")
        responseRequirements = try Self.text(object, "response_requirements")
    }

    /// Sets the scene from `{scene_description}` or a string.
    /// - Throws: MALFORMED_PAYLOAD.
    mutating func setScene(_ json: JSON) throws(ProtocolError) {
        if let text = json.string {
            sceneDescription = text
            return
        }
        guard let object = json.object else { throw .malformed("the scene context must be an object") }
        sceneDescription = try Self.text(object, "scene_description")
    }

    /// A string member; empty when it is absent or null.
    private static func text(_ object: JSONObject, _ name: String) throws(ProtocolError) -> String {
        guard let value = object.present(name) else { return "" }
        guard let text = value.string else { throw .malformed("\"\(name)\" must be a string") }
        return text
    }

    /// Checks the size of the settings as JSON, in bytes.
    /// - Throws: PAYLOAD_TOO_LARGE with the limit.
    func requireSize(_ maximum: Int) throws(ProtocolError) {
        guard json.bytes.count <= maximum else {
            throw ProtocolError(.payloadTooLarge, "the session's settings are larger than \(maximum) bytes")
        }
    }

    // MARK: in Redis

    /// The settings as stored in the session's hash, field `settings`.
    var json: JSON {
        [
            "platform": .string(platform.rawValue), "require_tts": .bool(requiresSpeech), "enable_srs": .bool(enablesRecognition),
            "reasoning": .bool(wantsReasoning), "function_calling": .array(functions.map { .object($0.source) }),
            "role_description": .string(roleDescription), "response_requirements": .string(responseRequirements),
            "scene_description": .string(sceneDescription),
        ]
    }

    init() {}

    /// Restores stored settings. Missing or malformed members keep their defaults, since an older version may have written them.
    init(stored json: JSON) {
        platform = json["platform"]?.string.flatMap(Platform.init) ?? .web
        requiresSpeech = json["require_tts"]?.bool ?? false
        enablesRecognition = json["enable_srs"]?.bool ?? false
        wantsReasoning = json["reasoning"]?.bool ?? false
        functions = json["function_calling"].flatMap { try? FunctionDefinition.list($0) } ?? []
        roleDescription = json["role_description"]?.string ?? ""
        responseRequirements = json["response_requirements"]?.string ?? ""
        sceneDescription = json["scene_description"]?.string ?? ""
    }
}

/// The changes that a REQUEST makes to its session's settings: `function_calling_op` and `update_session`.
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

    var isEmpty: Bool { functions == nil && members == nil }

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
            members = object
        }
    }

    /// Applies all changes or none.
    /// - Parameter maximumSize: maximum bytes of the settings as JSON.
    /// - Throws: MALFORMED_PAYLOAD, PAYLOAD_TOO_LARGE.
    func applied(to settings: SessionSettings, maximumSize: Int = SessionSettings.defaultMaximumSize) throws(ProtocolError)
        -> SessionSettings
    {
        var result = settings
        if let functions { Self.apply(functions.operation, functions.list, to: &result.functions) }
        if let members {
            if let prompt = members.present("systemPrompt") { try result.setSystemPrompt(prompt) }
            if let scene = members.present("sceneContext") { try result.setScene(scene) }
            if let list = members.present("functionCalling") { result.functions = try FunctionDefinition.list(list) }
            if let flag = try members.flag("requireTTS") { result.requiresSpeech = flag }
            if let flag = try members.flag("enableSRS") { result.enablesRecognition = flag }
            if let flag = try members.flag("reasoning") { result.wantsReasoning = flag }
        }
        guard result.functions.count <= FunctionDefinition.maximumCount else {
            throw .malformed("the session would have more than \(FunctionDefinition.maximumCount) functions")
        }
        try result.requireSize(maximumSize)
        return result
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
