import Contract
import JSONCodec
import Support

/// The payload of REQUEST.
struct RequestPayload: Sendable {
    var id: String
    /// The user's message. Empty when the request only updates the session.
    var text: String
    /// Results of function calls, instead of a text.
    var results: [FunctionResult]
    /// Bytes of `results` in UTF-8.
    var resultBytes: Int { results.reduce(0) { $0 + $1.text.utf8.count } }
    /// The audio of a VOICE request, instead of a text.
    var voice: VoicePayload?
    /// Whether the request only updates the session.
    var isUpdateOnly: Bool { text.isEmpty && results.isEmpty && voice == nil }
    /// Nil: the default model.
    var model: String?
    /// Whether the request interrupts the session's running ones; nil: as the session's `auto_supersede` says.
    var supersedes: Bool?
    /// Changes to the session's settings.
    var update: SessionUpdate

    /// - Parameter recognizesSpeech: whether VOICE requests are accepted.
    /// - Throws: MALFORMED_PAYLOAD, UNSUPPORTED_DATA_TYPE.
    init(_ payload: JSONObject, recognizesSpeech: Bool = true) throws(ProtocolError) {
        let id = try payload.requestID()
        self.id = id
        guard let type = payload["data_type"]?.string else { throw .malformed("\"data_type\" must be a string", requestID: id) }
        guard type == "TEXT" || type == "VOICE" else {
            throw ProtocolError(
                .unsupportedDataType, "data_type \"\(type.cut(toBytes: 20))\" is not supported; use TEXT or VOICE", requestID: id)
        }
        guard type == "TEXT" || recognizesSpeech else {
            throw ProtocolError(.unsupportedDataType, "speech is not recognized here; use TEXT", requestID: id)
        }
        voice = type == "VOICE" ? try VoicePayload(payload, requestID: id) : nil
        results =
            try payload.present("function_results").map { json throws(ProtocolError) in try FunctionResult.list(json, requestID: id) } ?? []
        if voice != nil {
            text = ""
        } else if results.isEmpty {
            guard let content = payload["content"]?.object else { throw .malformed("\"content\" must be an object", requestID: id) }
            guard let text = content["text"]?.string else { throw .malformed("\"content.text\" must be a string", requestID: id) }
            self.text = text
        } else {
            guard payload["content"]?["text"]?.string?.isEmpty ?? true else {
                throw .malformed("\"function_results\" come instead of a text", requestID: id)
            }
            text = ""
        }
        supersedes = try payload.flag("supersede", requestID: id)
        if let model = payload.present("model") {
            guard let name = model.string else { throw .malformed("\"model\" must be a string", requestID: id) }
            self.model = name.isEmpty ? nil : try name.bounded("model", NameLimit.model, requestID: id)
        }
        do { update = try SessionUpdate(payload) } catch {
            var error = error
            error.requestID = id
            throw error
        }
    }
}

/// The result of a function call.
struct FunctionResult: Sendable, Equatable {
    /// Maximum results in one request.
    static let maximumCount = 128

    var callID: String
    /// A string as it is, any other JSON as text.
    var text: String

    /// Parses `function_results`.
    /// - Throws: MALFORMED_PAYLOAD.
    static func list(_ json: JSON, requestID: String) throws(ProtocolError) -> [FunctionResult] {
        guard let elements = json.array else { throw .malformed("\"function_results\" must be an array", requestID: requestID) }
        guard elements.count <= maximumCount else {
            throw .malformed("\"function_results\" has more than \(maximumCount) entries", requestID: requestID)
        }
        var list: [FunctionResult] = []
        for element in elements {
            guard let id = element["call_id"]?.string, !id.isEmpty, let result = element["result"] else {
                throw .malformed("an entry of \"function_results\" must have \"call_id\" and \"result\"", requestID: requestID)
            }
            guard !list.contains(where: { $0.callID == id }) else {
                throw .malformed("\"function_results\" has two results for one call", requestID: requestID)
            }
            list.append(FunctionResult(callID: id, text: result.string ?? result.text))
        }
        return list
    }
}
