import Contract
import JSONCodec
import Support

/// The payload of REQUEST.
struct RequestPayload: Sendable {
    var id: String
    /// The user's message. Empty when the request only updates the session.
    var text: String
    /// Overrides the session's setting for this request; nil: no override.
    var requiresSpeech: Bool?
    /// Nil: the default model.
    var model: String?
    /// Whether the request interrupts the session's running ones.
    var supersedes: Bool
    /// Changes to the session's settings.
    var update: SessionUpdate

    /// - Throws: MALFORMED_PAYLOAD, UNSUPPORTED_DATA_TYPE.
    init(_ payload: JSONObject) throws(ProtocolError) {
        guard let id = payload["request_id"]?.string, !id.isEmpty, id.utf8.count <= NameLimit.id else {
            throw .malformed("\"request_id\" must be a string of 1 to \(NameLimit.id) bytes")
        }
        self.id = id
        guard let type = payload["data_type"]?.string else { throw .malformed("\"data_type\" must be a string", requestID: id) }
        guard type == "TEXT" else {
            throw ProtocolError(
                .unsupportedDataType, "data_type \"\(type.cut(toBytes: 20))\" is not supported; use TEXT", requestID: id)
        }
        guard let content = payload["content"]?.object else { throw .malformed("\"content\" must be an object", requestID: id) }
        guard let text = content["text"]?.string else { throw .malformed("\"content.text\" must be a string", requestID: id) }
        self.text = text
        requiresSpeech = try payload.flag("require_tts", requestID: id)
        _ = try payload.flag("enable_srs", requestID: id)
        supersedes = try payload.flag("supersede", requestID: id) ?? false
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

/// The payload of INTERRUPT.
struct InterruptPayload: Sendable, Equatable {
    /// Maximum ids in one message; far above the number of requests that a session may run.
    static let maximumCount = 1_000

    /// `interrupt_request_id` as received, for the acknowledgement; nil when absent.
    var echo: JSON?
    /// The requests to interrupt, without duplicates. Nil: all running requests of the session.
    var ids: [String]?
    var reason: String

    /// - Throws: MALFORMED_PAYLOAD.
    init(_ payload: JSONObject) throws(ProtocolError) {
        echo = payload["interrupt_request_id"]
        switch echo {
        case nil, .null, .string(""), .array([]): ids = nil
        case .string(let id): ids = [try id.bounded("interrupt_request_id", NameLimit.id)]
        case .array(let elements):
            guard elements.count <= Self.maximumCount else {
                throw .malformed("\"interrupt_request_id\" has more than \(Self.maximumCount) entries")
            }
            var seen: Set<String> = []
            var list: [String] = []
            for element in elements {
                guard let id = element.string else { throw .malformed("\"interrupt_request_id\" must contain only strings") }
                if seen.insert(try id.bounded("interrupt_request_id", NameLimit.id)).inserted { list.append(id) }
            }
            ids = list
        default: throw .malformed("\"interrupt_request_id\" must be a string or an array of strings")
        }
        switch payload.present("reason") {
        case nil: reason = InterruptReason.userStop
        case .string(let text) where Interrupt.isReason(text): reason = text
        default: throw .malformed("\"reason\" must be 1 to \(NameLimit.reason) characters of A-Z a-z 0-9 _ . -")
        }
    }
}

/// The payload of RESUME.
struct ResumePayload: Sendable, Equatable {
    var id: String
    /// The last event that the client has; the replay starts after it. Nil: from the beginning.
    var after: EventID?

    /// - Throws: MALFORMED_PAYLOAD.
    init(_ payload: JSONObject) throws(ProtocolError) {
        guard let id = payload["request_id"]?.string, !id.isEmpty, id.utf8.count <= NameLimit.id else {
            throw .malformed("\"request_id\" must be a string of 1 to \(NameLimit.id) bytes")
        }
        self.id = id
        switch payload.present("last_event_id") {
        case nil, .string(""): after = nil
        case .string(let text):
            guard let event = EventID(text) else { throw .malformed("\"last_event_id\" is not an event id", requestID: id) }
            after = event
        default: throw .malformed("\"last_event_id\" must be a string", requestID: id)
        }
    }
}

extension String {
    /// Checks the length in bytes of UTF-8.
    /// - Returns: the string itself.
    /// - Throws: MALFORMED_PAYLOAD with the field's name and limit.
    func bounded(_ field: String, _ maximum: Int, requestID: String? = nil) throws(ProtocolError) -> String {
        guard utf8.count <= maximum else {
            throw .malformed("\"\(field)\" is longer than \(maximum) bytes", requestID: requestID)
        }
        return self
    }
}
