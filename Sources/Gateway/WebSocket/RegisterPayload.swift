import Contract
import JSONCodec

/// The payload of REGISTER.
struct RegisterPayload: Sendable {
    var credential: Credential
    var settings: SessionSettings
    /// Id of the session to resume; nil opens a new one.
    var resumedSession: String?

    /// - Parameter maximumSize: maximum bytes of the session's settings as JSON.
    /// - Throws: MALFORMED_PAYLOAD, PAYLOAD_TOO_LARGE.
    init(_ payload: JSONObject, maximumSize: Int = SessionSettings.defaultMaximumSize) throws(ProtocolError) {
        guard let auth = payload["auth"]?.object else { throw .malformed("\"auth\" must be an object") }
        func field(_ name: String) throws(ProtocolError) -> String {
            guard let text = auth[name]?.string else { throw .malformed("\"auth.\(name)\" must be a string") }
            return text
        }
        switch auth["type"]?.string {
        case "API_KEY": credential = .apiKey(try field("api_key"))
        case "ACCOUNT": credential = .account(try field("account"), password: try field("password"))
        case "JWT": credential = .jwt(try field("token"))
        default: throw .malformed("\"auth.type\" must be API_KEY, ACCOUNT or JWT")
        }
        var settings = SessionSettings()
        if let platform = payload.present("platform") ?? payload.present("client_type") {
            guard let known = platform.string.flatMap(SessionSettings.Platform.init) else {
                throw .malformed("\"platform\" must be WEB, APP, MINI_PROGRAM or TV")
            }
            settings.platform = known
        }
        settings.requiresSpeech = try payload.flag("require_tts") ?? false
        settings.enablesRetrieval = try payload.flag("enable_srs") ?? true
        settings.supersedes = try payload.flag("auto_supersede") ?? false
        if let rate = payload.present("voice_sample_rate") {
            guard let rate = rate.integer, SessionSettings.voiceRates.contains(rate) else {
                throw .malformed("\"voice_sample_rate\" must be 8000 to 48000")
            }
            settings.voiceRate = rate
        }
        if let functions = payload.present("function_calling") { settings.functions = try FunctionDefinition.list(functions) }
        if let prompt = payload.present("system_prompt") { try settings.setSystemPrompt(prompt) }
        if let scene = payload.present("scene_context") { try settings.setScene(scene) }
        try settings.requireSize(maximumSize)
        self.settings = settings
        if let resumed = payload.present("resume_session_id") {
            guard let text = resumed.string else { throw .malformed("\"resume_session_id\" must be a string") }
            resumedSession = text.isEmpty ? nil : try text.bounded("resume_session_id", NameLimit.id)
        }
    }
}

extension JSONObject {
    /// The member's value; nil when it is absent or null.
    func present(_ name: String) -> JSON? { self[name].flatMap { $0.isNull ? nil : $0 } }

    /// A Boolean member; nil when it is absent or null.
    /// - Throws: MALFORMED_PAYLOAD when the value is not a Boolean.
    func flag(_ name: String, requestID: String? = nil) throws(ProtocolError) -> Bool? {
        guard let value = present(name) else { return nil }
        guard let flag = value.bool else { throw .malformed("\"\(name)\" must be true or false", requestID: requestID) }
        return flag
    }
}
