import Contract
import JSONCodec
import NIOHTTP1

/// What a request asks for, whatever dialect it came in.
struct Ask: Sendable {
    var model: String
    var stream: Bool
    /// The body's `user`; the request's `x-request-id` stands in for it.
    var tag: String?
    /// What the assistant has said already and is to go on from.
    var prefix: String?
    /// What a readable answer is about: the last thing that the user said.
    var question = ""
    /// The first function that is offered.
    var toolName: String?
    /// The client's limit of tokens. A script's number of tokens goes before it.
    var maximumTokens: Int?
    /// A usage frame at the end of a stream.
    var includeUsage = true
    /// Each frame says only what is new, not all of the answer so far.
    var incremental = true
    /// DashScope's older form of a result: `output.text` instead of `output.choices`.
    var plainText = false
    /// Audio in a WAV file's frame instead of bare samples.
    var waveHeader = false
}

/// A request that is answered with an error at once.
struct Refusal: Error, Hashable {
    var status: Int
    var message: String

    init(_ status: Int, _ message: String) {
        self.status = status
        self.message = message
    }
}

/// The provider's own words for one of its endpoints.
protocol Dialect: Sendable {
    static func ask(_ body: JSON, headers: HTTPHeaders) throws(Refusal) -> Ask
    /// What the answer will say, and how; by default text.
    /// - Parameter script: nil if the model's name is no script's.
    static func plan(_ ask: Ask, script: ModelScript?) -> (script: ModelScript, answer: Answer)
    static func form(of answer: Answer, to ask: Ask, number: Int) -> any AnswerForm
    /// The body of an error, JSON.
    static func error(status: Int, message: String, number: Int) -> [UInt8]
}

extension Dialect {
    static func plan(_ ask: Ask, script: ModelScript?) -> (script: ModelScript, answer: Answer) {
        if let script { return (script, Answer(script: script, prefix: ask.prefix, toolName: ask.toolName)) }
        let pieces = ReadableParagraph(about: ask.question).pieces
        return (ReadableParagraph.script, Answer(readable: pieces, prefix: ask.prefix, limit: ask.maximumTokens))
    }
}

/// One answer on its way out in its provider's form. Made for one request, used on one loop.
protocol AnswerForm: AnyObject {
    /// The content type of a stream.
    var streamType: String { get }
    /// The content type of an answer in one go.
    var wholeType: String { get }
    /// What goes out together with the head, before the first token.
    func start(_ writer: inout ChunkWriter)
    /// - Parameter total: tokens written, this one among them.
    func write(_ piece: Piece, total: Int, to writer: inout ChunkWriter)
    /// Finish reason, usage, end mark.
    func end(total: Int, to writer: inout ChunkWriter)
    /// An error in mid-stream, under a status that said 200.
    func errorFrame(to writer: inout ChunkWriter)
    /// The answer in one go, up to its `total`th token.
    /// - Parameter complete: false: without a finish reason.
    func whole(total: Int, complete: Bool) -> [UInt8]
    /// The body of an error under a status that says 200.
    var wholeError: [UInt8] { get }
}

extension AnswerForm {
    var wholeType: String { "application/json" }
}

/// What an error status means, in the words shared by the providers' messages.
enum ErrorStatus {
    static func message(_ status: Int) -> String {
        switch status {
        case 400: "The simulator was told to find this request invalid."
        case 401: "The simulator was told to find this key invalid."
        case 403: "The simulator was told to refuse this key."
        case 404: "The simulator was told not to know this model."
        case 429: "The simulator was told that there are too many requests."
        case 503, 529: "The simulator was told to be overloaded."
        default: "The simulator was told to answer \(status)."
        }
    }
}

/// What was asked of a model costs this many prompt tokens.
enum PromptTokens {
    static let count = 10
}

extension String {
    /// As JSON, with its quotes.
    var quoted: String { JSON.string(self).text }
}

/// Reading the messages of a chat, which most dialects write alike.
enum ChatMessages {
    /// A message's text: a string, or the `text` of its parts put together.
    static func text(of message: JSON) -> String {
        guard let content = message["content"] else { return "" }
        if let text = content.string { return text }
        return (content.array ?? []).compactMap { $0["text"]?.string }.joined()
    }

    static func question(in messages: [JSON]) -> String {
        messages.last { $0["role"]?.string == "user" }.map(text) ?? ""
    }

    /// The text of a last message that is the assistant's.
    static func prefix(in messages: [JSON]) -> String? {
        guard let last = messages.last, last["role"]?.string == "assistant" else { return nil }
        return text(of: last)
    }

    static func model(in body: JSON) throws(Refusal) -> String {
        guard body.object != nil else { throw Refusal(400, "the body is not a JSON object") }
        guard let model = body["model"]?.string, !model.isEmpty else { throw Refusal(400, "model is missing") }
        guard model.utf8.count <= 256 else { throw Refusal(400, "the model's name is longer than 256 bytes") }
        return model
    }

    static func messages(in value: JSON?) throws(Refusal) -> [JSON] {
        guard let messages = value?.array, !messages.isEmpty else { throw Refusal(400, "messages is missing or empty") }
        return messages
    }
}
