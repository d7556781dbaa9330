import JSONCodec

/// The content of an `error` event of the Realtime API.
struct RealtimeError: Error, Sendable, Equatable {
    var type = "invalid_request_error"
    var code: String
    var message: String
    /// The parameter of the client event that the error is about; nil for none.
    var parameter: String?

    init(_ code: String, _ message: String, parameter: String? = nil, type: String = "invalid_request_error") {
        self.type = type
        self.code = code
        self.message = message
        self.parameter = parameter
    }

    /// A field that is invalid or not supported.
    init(_ failure: HTTPErrorResponse) { self.init(failure.code, failure.message, type: failure.type) }

    /// A refusal of the session's machinery.
    init(_ error: ProtocolError) {
        switch error.code {
        case .rateLimited: self.init("rate_limit_exceeded", error.message, type: "rate_limit_error")
        case .serverBusy, .internalError, .requestTimeout, .upstreamError:
            self.init(error.detail.isEmpty ? "server_error" : error.detail, error.message, type: "server_error")
        case .authFailed, .sessionInvalid, .malformedPayload, .streamSequence, .payloadTooLarge, .unsupportedDataType, .duplicateRequest:
            self.init("invalid_request", error.message)
        }
    }

    /// - Parameter eventID: the id that the client gave the event that caused the error.
    func json(eventID: String?) -> JSON {
        [
            "type": .string(type), "code": .string(code), "message": .string(message), "param": parameter.map(JSON.string) ?? .null,
            "event_id": eventID.map(JSON.string) ?? .null,
        ]
    }
}

/// Writes the server events of one Realtime connection, each with its own `event_id`.
struct RealtimeEvents {
    private var count = 0

    mutating func event(_ type: String, _ members: [JSONObject.Member]) -> [UInt8] {
        let head: [JSONObject.Member] = [
            .init(name: "type", value: .string(type)), .init(name: "event_id", value: .string("event_\(count)")),
        ]
        count += 1
        return JSON.object(JSONObject(head + members)).bytes
    }
}
