import Contract
import JSONCodec
import Support

/// The payload of INTERRUPT.
struct InterruptPayload: Sendable, Equatable {
    /// Maximum ids in one message; far above the number of requests that a session may run.
    static let maximumCount = 1_000

    /// `interrupt_request_id` as received, for the acknowledgement; nil when absent.
    var echo: JSON?
    /// The requests to interrupt, without duplicates. Nil: all running requests of the session.
    var ids: [String]?
    var reason: String
    /// How much of the voice the client has played, in milliseconds; nil when it does not say.
    var playedMilliseconds: Int?

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
        playedMilliseconds = try payload.present("played_ms").map { json throws(ProtocolError) in try json.playedMilliseconds("played_ms") }
    }
}

/// The payload of RESUME.
struct ResumePayload: Sendable, Equatable {
    var id: String
    /// The last event that the client has; the replay starts after it. Nil: from the beginning.
    var after: EventID?

    /// - Throws: MALFORMED_PAYLOAD.
    init(_ payload: JSONObject) throws(ProtocolError) {
        let id = try payload.requestID()
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

/// The payload of PLAYED.
struct PlayedPayload: Sendable, Equatable {
    var id: String
    var milliseconds: Int

    /// - Throws: MALFORMED_PAYLOAD.
    init(_ payload: JSONObject) throws(ProtocolError) {
        let id = try payload.requestID()
        self.id = id
        do { milliseconds = try (payload["ms"] ?? .null).playedMilliseconds("ms") } catch {
            var error = error
            error.requestID = id
            throw error
        }
    }
}

extension JSON {
    /// A playing time in milliseconds; fractions are dropped, and anything above a day is a day.
    /// - Throws: MALFORMED_PAYLOAD.
    fileprivate func playedMilliseconds(_ field: String) throws(ProtocolError) -> Int {
        guard let number = double, number >= 0 else { throw .malformed("\"\(field)\" must be a number of milliseconds, at least 0") }
        return Int(min(number, 86_400_000))
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
