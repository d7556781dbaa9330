import Contract
import JSONCodec
import NIOHTTP1

/// The content of a request, independent of its dialect.
struct Ask: Sendable {
    var model: String
    var stream: Bool
    /// The body's `user`; if nil, the `x-request-id` header is used.
    var tag: String?
    /// Text of the assistant's answer so far, which the answer continues.
    var prefix: String?
    /// The last user message, the topic of a readable answer.
    var question = ""
    /// Name of the first offered function.
    var toolName: String?
    /// Whether the request ends with the result of a tool call.
    var hasToolResult = false
    /// The client's token limit. Ignored by scripted models.
    var maximumTokens: Int?
    /// Whether a stream ends with a usage frame.
    var includeUsage = true
    /// Whether frames contain only new content instead of the whole answer so far.
    var incremental = true
    /// Whether results have DashScope's older form, `output.text` instead of `output.choices`.
    var plainText = false
    /// What the audio of a recognition request says; nil for other requests.
    var transcript: String?
    /// Whether audio starts with a WAV header.
    var waveHeader = false
}

/// A request that is rejected at once with an error response.
struct Refusal: Error, Hashable {
    var status: Int
    var message: String

    init(_ status: Int, _ message: String) {
        self.status = status
        self.message = message
    }
}

/// The request and response format of one provider endpoint.
protocol Dialect: Sendable {
    /// Parses a request.
    /// - Throws: `Refusal` with the provider's error for an invalid request.
    static func ask(_ body: JSON, headers: HTTPHeaders) throws(Refusal) -> Ask
    /// Chooses the script and the content of an answer; by default text.
    /// - Parameter script: nil if the model name is not a script.
    static func plan(_ ask: Ask, script: ModelScript?) -> (script: ModelScript, answer: Answer)
    /// The object that writes an answer in this format.
    static func form(of answer: Answer, to ask: Ask, number: Int) -> any AnswerForm
    /// The JSON body of an error response.
    static func error(status: Int, message: String, number: Int) -> [UInt8]
}

extension Dialect {
    static func plan(_ ask: Ask, script: ModelScript?) -> (script: ModelScript, answer: Answer) {
        if var script {
            if script.callsOnce, !ask.hasToolResult { script.toolCall = true }
            return (script, Answer(script: script, prefix: ask.prefix, toolName: ask.toolName))
        }
        let pieces = ReadableParagraph(about: ask.question).pieces
        return (ReadableParagraph.script, Answer(readable: pieces, prefix: ask.prefix, limit: ask.maximumTokens))
    }
}

/// Writes one answer in its provider's format. Created for one request and used on one event loop.
protocol AnswerForm: AnyObject {
    /// Content type of a streamed answer.
    var streamType: String { get }
    /// Content type of an answer in one response.
    var wholeType: String { get }
    /// Writes what precedes the first token; it is sent together with the head.
    func start(_ writer: inout ChunkWriter)
    /// Writes a piece.
    /// - Parameter total: Number of tokens written, including this one.
    func write(_ piece: Piece, total: Int, to writer: inout ChunkWriter)
    /// Writes finish reason, usage and end mark.
    func end(total: Int, to writer: inout ChunkWriter)
    /// Writes an error frame in a stream whose status was 200.
    func errorFrame(to writer: inout ChunkWriter)
    /// The answer in one response, up to `total` tokens.
    /// - Parameter complete: False omits the finish reason.
    func whole(total: Int, complete: Bool) -> [UInt8]
    /// The body of an error in a response whose status is 200.
    var wholeError: [UInt8] { get }
}

extension AnswerForm {
    var wholeType: String { "application/json" }
}

/// Messages of simulated error responses.
enum ErrorStatus {
    static func message(_ status: Int) -> String {
        switch status {
        case 400: "Simulated error: invalid request."
        case 401: "Simulated error: invalid API key."
        case 403: "Simulated error: permission denied for this API key."
        case 404: "Simulated error: model not found."
        case 429: "Simulated error: too many requests."
        case 503, 529: "Simulated error: overloaded."
        default: "Simulated error: status \(status)."
        }
    }
}

/// The fixed number of prompt tokens reported for every request.
enum PromptTokens {
    static let count = 10
}

extension String {
    /// The string as a JSON string, including its quotes.
    var quoted: String { JSON.string(self).text }
}

/// Helpers for the chat messages that most dialects share.
enum ChatMessages {
    /// The text of a message: its string content, or the text of its parts concatenated.
    static func text(of message: JSON) -> String {
        guard let content = message["content"] else { return "" }
        if let text = content.string { return text }
        return (content.array ?? []).compactMap { $0["text"]?.string }.joined()
    }

    /// The text of the last user message; empty if there is none.
    static func question(in messages: [JSON]) -> String {
        messages.last { $0["role"]?.string == "user" }.map(text) ?? ""
    }

    /// The text of the last message if its role is assistant, otherwise nil.
    static func prefix(in messages: [JSON]) -> String? {
        guard let last = messages.last, last["role"]?.string == "assistant" else { return nil }
        return text(of: last)
    }

    /// The model name.
    /// - Throws: `Refusal` if it is missing or longer than 256 bytes.
    static func model(in body: JSON) throws(Refusal) -> String {
        guard body.object != nil else { throw Refusal(400, "the request body is not a JSON object") }
        guard let model = body["model"]?.string, !model.isEmpty else { throw Refusal(400, "model is missing") }
        guard model.utf8.count <= 256 else { throw Refusal(400, "the model's name is longer than 256 bytes") }
        return model
    }

    /// The messages of a request.
    /// - Throws: `Refusal` if there are none.
    static func messages(in value: JSON?) throws(Refusal) -> [JSON] {
        guard let messages = value?.array, !messages.isEmpty else { throw Refusal(400, "messages is missing or empty") }
        return messages
    }
}
