import Contract
import JSONCodec

/// The body of `POST /v1/chat/completions`, as far as a gateway looks into it; all of it goes to the upstream.
struct ChatCompletionRequest: Sendable, Equatable {
    /// What the answer depends on.
    struct Options: Sendable, Equatable {
        let streams: Bool
        let includesUsage: Bool
        /// What the answer calls the model until an upstream has said it: the one asked for.
        let model: String?
    }

    let body: JSONObject
    let options: Options

    /// - Throws: 400 that names the field at fault.
    init(parsing bytes: [UInt8], maximumDepth: Int) throws(HTTPFailure) {
        let json: JSON
        do { json = try JSON(parsing: bytes, maximumDepth: maximumDepth) } catch {
            throw HTTPFailure.invalid("the body is not JSON: \(error)")
        }
        guard case .object(let body) = json else { throw HTTPFailure.invalid("the body is not a JSON object") }
        guard let messages = body["messages"]?.array, !messages.isEmpty, messages.allSatisfy({ $0.object != nil }) else {
            throw HTTPFailure.invalid("\"messages\" is not a list of at least one message")
        }
        switch body["n"] {
        case nil, .null: break
        case .some(let number) where number.integer == 1: break
        default: throw HTTPFailure.invalid("\"n\" may only be 1", code: "unsupported_parameter")
        }
        self.body = body
        let (includesUsage, model): (Bool, String?)
        let streams = try Self.flag(body["stream"], name: "stream")
        switch body["stream_options"] {
        case nil, .null: includesUsage = false
        case .object(let options): includesUsage = try Self.flag(options["include_usage"], name: "stream_options.include_usage")
        default: throw HTTPFailure.invalid("\"stream_options\" is not an object")
        }
        switch body["model"] {
        case nil, .null: model = nil
        case .string(let name) where name.utf8.count > NameLimit.model:
            throw HTTPFailure.invalid("\"model\" has more than \(NameLimit.model) bytes")
        case .string(let name): model = name.isEmpty ? nil : name
        default: throw HTTPFailure.invalid("\"model\" is not a string")
        }
        options = Options(streams: streams, includesUsage: includesUsage, model: model)
    }

    private static func flag(_ value: JSON?, name: String) throws(HTTPFailure) -> Bool {
        guard let value, !value.isNull else { return false }
        guard let flag = value.bool else { throw HTTPFailure.invalid("\"\(name)\" is neither true nor false") }
        return flag
    }
}
