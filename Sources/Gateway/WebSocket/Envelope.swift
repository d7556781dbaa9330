import Contract
import JSONCodec
import NIOCore
import Support

/// A parsed client message: `{"version":"1.0","msg_type":…,"session_id":…,"payload":{…},"timestamp":…}`.
struct Envelope: Sendable, Equatable {
    static let version = "1.0"

    /// `msg_type` of the messages that clients send.
    enum Kind: String, Sendable {
        case register = "REGISTER"
        case request = "REQUEST"
        case interrupt = "INTERRUPT"
        case resume = "RESUME"
        case played = "PLAYED"
        case sessionQuery = "SESSION_QUERY"
        case heartbeatReply = "HEARTBEAT_REPLY"
        case shutdown = "SHUTDOWN"
        case healthCheck = "HEALTH_CHECK"
    }

    var kind: Kind
    /// Empty when the message has none.
    var sessionID: String
    var payload: JSONObject

    /// Parses one text message.
    /// - Parameters:
    ///   - maximumDepth: nesting depth of the JSON.
    ///   - values: set to the number of members and elements of the JSON.
    /// - Throws: MALFORMED_PAYLOAD, with the `request_id` where one can be read, so that the client can match the error to its request.
    init(parsing message: ByteBuffer, maximumDepth: Int, values: inout Int) throws(ProtocolError) {
        let json: JSON
        do { json = try JSON(parsing: message.readableBytesView, maximumDepth: maximumDepth, values: &values) } catch {
            throw .malformed("the message is not JSON: \(error)")
        }
        guard let object = json.object else { throw .malformed("the message is not a JSON object") }
        let payload = object["payload"]?.object
        let requestID = payload?.readableRequestID
        func malformed(_ text: String) -> ProtocolError { .malformed(text, requestID: requestID) }
        guard let type = object["msg_type"]?.string else { throw malformed("\"msg_type\" must be a string") }
        guard object["version"]?.string == Self.version else { throw malformed("\"version\" must be \"\(Self.version)\"") }
        guard case .number = object["timestamp"] else { throw malformed("\"timestamp\" must be a number of milliseconds") }
        guard let payload else { throw malformed("\"payload\" must be an object") }
        switch object["session_id"] {
        case nil, .null: sessionID = ""
        case .string(let text): sessionID = try text.bounded("session_id", NameLimit.id, requestID: requestID)
        default: throw malformed("\"session_id\" must be a string")
        }
        guard let kind = Kind(rawValue: type) else { throw malformed("the msg_type \"\(type.cut(toBytes: 40))\" is unknown") }
        self.kind = kind
        self.payload = payload
    }
}

/// Serializes messages to clients directly as bytes.
enum EnvelopeWriter {
    /// Appends everything before the payload. The caller appends the payload, including its braces, and then calls `close`.
    static func open(_ type: String, session: String, into out: inout [UInt8]) {
        out.append(contentsOf: #"{"version":"1.0""#.utf8)
        out.appendJSONMember("msg_type", type)
        out.appendJSONMember("session_id", session)
        out.appendJSONName("payload")
    }

    /// Appends everything after the payload.
    /// - Parameter milliseconds: the message's timestamp, since 1970.
    static func close(milliseconds: Int, into out: inout [UInt8]) {
        out.appendJSONMember("timestamp", milliseconds)
        out.append(UInt8(ascii: "}"))
    }

    /// - Returns: a complete message.
    static func message(_ type: String, session: String, payload: JSON, milliseconds: Int) -> [UInt8] {
        var out: [UInt8] = []
        open(type, session: session, into: &out)
        payload.append(to: &out)
        close(milliseconds: milliseconds, into: &out)
        return out
    }
}

extension JSONObject {
    /// The member `request_id` of a payload.
    /// - Throws: MALFORMED_PAYLOAD unless it is a string of 1 to `NameLimit.id` bytes.
    func requestID() throws(ProtocolError) -> String {
        guard let id = readableRequestID, !id.isEmpty else {
            throw .malformed("\"request_id\" must be a string of 1 to \(NameLimit.id) bytes")
        }
        return id
    }

    /// The member `request_id` of a payload, for an ERROR; nil when absent or too long.
    var readableRequestID: String? { self["request_id"]?.string.flatMap { $0.utf8.count <= NameLimit.id ? $0 : nil } }
}
