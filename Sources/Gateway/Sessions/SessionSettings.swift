import Contract
import JSONCodec
import Support

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
    /// Whether documents are retrieved for each request. No effect without a retrieval upstream.
    var enablesRetrieval = true
    /// Whether every REQUEST supersedes the session's running ones.
    var supersedes = false
    /// Sample rate of the voice in Hz, from `voiceRates`; nil: the gateway's `SLUICE_VOICE_RATE`.
    var voiceRate: Int?
    /// Whether reasoning text is sent to the client.
    var wantsReasoning = false
    var functions: [FunctionDefinition] = []
    var roleDescription = ""
    var responseRequirements = ""
    var sceneDescription = ""
    /// Instructions that hold in this scene only.
    var scenePrompt = ""

    /// Valid sample rates of the voice, in Hz.
    static let voiceRates = 8_000...48_000

    /// The system message: the non-empty descriptions, separated by blank lines; nil when all are empty.
    var systemMessage: String? {
        let parts = [roleDescription, responseRequirements, sceneDescription, scenePrompt].filter { !$0.isEmpty }
        return parts.isEmpty ? nil : parts.joined(separator: "\n\n")
    }

    /// Sets the system prompt from `{role_description, response_requirements}`, or from a string that is the role description.
    /// - Parameter isStrict: whether an unknown member is an error. REGISTER ignores them.
    /// - Throws: MALFORMED_PAYLOAD.
    mutating func setSystemPrompt(_ json: JSON, isStrict: Bool = false) throws(ProtocolError) {
        if let text = json.string {
            (roleDescription, responseRequirements) = (text, "")
            return
        }
        guard let object = json.object else { throw .malformed("the system prompt must be an object or a string") }
        (roleDescription, responseRequirements) = ("", "")
        for member in object.members {
            switch member.name {
            case "role_description", "roleDescription": roleDescription = try Self.text(member)
            case "response_requirements", "responseRequirements": responseRequirements = try Self.text(member)
            default: if isStrict { throw .unknownField("system_prompt.\(member.name)") }
            }
        }
    }

    /// Sets the scene from `{scene_description, scene_specific_prompt}`, or from a string that is the description.
    /// - Parameter isStrict: whether an unknown member is an error. REGISTER ignores them.
    /// - Throws: MALFORMED_PAYLOAD.
    mutating func setScene(_ json: JSON, isStrict: Bool = false) throws(ProtocolError) {
        if let text = json.string {
            (sceneDescription, scenePrompt) = (text, "")
            return
        }
        guard let object = json.object else { throw .malformed("the scene context must be an object or a string") }
        (sceneDescription, scenePrompt) = ("", "")
        for member in object.members {
            switch member.name {
            case "scene_description", "sceneDescription", "description": sceneDescription = try Self.text(member)
            case "scene_specific_prompt", "sceneSpecificPrompt": scenePrompt = try Self.text(member)
            default: if isStrict { throw .unknownField("scene_context.\(member.name)") }
            }
        }
    }

    /// The text of a member; empty when it is null.
    private static func text(_ member: JSONObject.Member) throws(ProtocolError) -> String {
        if member.value.isNull { return "" }
        guard let text = member.value.string else { throw .malformed("\"\(member.name.cut(toBytes: 64))\" must be a string") }
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
        var members = JSONObject()
        members["platform"] = .string(platform.rawValue)
        members["require_tts"] = .bool(requiresSpeech)
        members["enable_srs"] = .bool(enablesRetrieval)
        members["auto_supersede"] = .bool(supersedes)
        members["voice_sample_rate"] = voiceRate.map(JSON.integer)
        members["reasoning"] = .bool(wantsReasoning)
        members["function_calling"] = .array(functions.map { .object($0.source) })
        members["role_description"] = .string(roleDescription)
        members["response_requirements"] = .string(responseRequirements)
        members["scene_description"] = .string(sceneDescription)
        members["scene_specific_prompt"] = .string(scenePrompt)
        return .object(members)
    }

    init() {}

    /// Restores stored settings. Missing or malformed members keep their defaults, since an older version may have written them.
    init(stored json: JSON) {
        platform = json["platform"]?.string.flatMap(Platform.init) ?? .web
        requiresSpeech = json["require_tts"]?.bool ?? false
        enablesRetrieval = json["enable_srs"]?.bool ?? true
        supersedes = json["auto_supersede"]?.bool ?? false
        voiceRate = json["voice_sample_rate"]?.integer.flatMap { Self.voiceRates.contains($0) ? $0 : nil }
        wantsReasoning = json["reasoning"]?.bool ?? false
        functions = json["function_calling"].flatMap { try? FunctionDefinition.list($0) } ?? []
        roleDescription = json["role_description"]?.string ?? ""
        responseRequirements = json["response_requirements"]?.string ?? ""
        sceneDescription = json["scene_description"]?.string ?? ""
        scenePrompt = json["scene_specific_prompt"]?.string ?? ""
    }
}
