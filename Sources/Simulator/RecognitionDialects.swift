import Contract
import JSONCodec
import NIOHTTP1

/// OpenAI's transcription API: a form with a file, answered with `{"text":…}`.
enum OpenAITranscriptionDialect: Dialect {
    static func ask(_ body: JSON, headers: HTTPHeaders) throws(Refusal) -> Ask {
        var ask = Ask(model: try ChatMessages.model(in: body), stream: false)
        guard let transcript = body["transcript"]?.string else { throw Refusal(400, "file is missing") }
        ask.question = transcript
        return ask
    }

    static func plan(_ ask: Ask, script: ModelScript?) -> (script: ModelScript, answer: Answer) { SimulatedDocument.plan(script) }

    static func form(of answer: Answer, to ask: Ask, number: Int) -> any AnswerForm {
        let document: JSON = ["text": .string(ask.question)]
        return DocumentForm(document.bytes)
    }

    static func error(status: Int, message: String, number: Int) -> [UInt8] {
        OpenAIDialect.error(status: status, message: message, number: number)
    }
}

/// The retrieval service: documents about the query. A key (`X-API-Key`) that is a model script steers it like a model's name.
enum RetrievalDialect: Dialect {
    static func ask(_ body: JSON, headers: HTTPHeaders) throws(Refusal) -> Ask {
        guard let query = body["query"]?.string, !query.isEmpty else { throw Refusal(400, "query is missing") }
        var ask = Ask(model: headers.first(name: "x-api-key") ?? "retrieval", stream: false)
        ask.question = query
        ask.maximumTokens = body["top_k"]?.count ?? 3
        return ask
    }

    static func plan(_ ask: Ask, script: ModelScript?) -> (script: ModelScript, answer: Answer) { SimulatedDocument.plan(script) }

    static func form(of answer: Answer, to ask: Ask, number: Int) -> any AnswerForm {
        let count = min(max(0, ask.maximumTokens ?? 3), 20)
        let topic = String(ask.question.prefix(60))
        let artifacts = (0..<count).map { index -> JSON in
            [
                "id": .string("doc-\(index + 1)"), "title": .string("Document \(index + 1)"),
                "content": .string("What is known about \"\(topic)\", part \(index + 1)."), "category": "simulated",
                "similarity": .number("0.\(max(1, 9 - index))"), "tags": [],
            ]
        }
        let document: JSON = [
            "query": .string(ask.question), "artifacts": .array(artifacts), "total_count": .integer(count),
            "response_time": .number("0.01"),
        ]
        return DocumentForm(document.bytes)
    }

    static func error(status: Int, message: String, number: Int) -> [UInt8] {
        let body: JSON = ["detail": .string(message)]
        return body.bytes
    }
}

/// The pace of answers that are one document.
enum SimulatedDocument {
    /// A document is one token: the script's delay, error, drop and silence apply to it.
    static func plan(_ script: ModelScript?) -> (script: ModelScript, answer: Answer) {
        var script = script ?? ModelScript()
        script.tokens = 1
        script.gap = 0
        script.silentAfter = script.silentAfter.map { _ in 0 }
        script.dropAfter = script.dropAfter.map { _ in 0 }
        return (script, Answer(words: 1))
    }
}

/// An answer that is one JSON document.
final class DocumentForm: AnswerForm {
    private let document: [UInt8]

    init(_ document: [UInt8]) { self.document = document }

    var streamType: String { wholeType }
    func start(_ writer: inout ChunkWriter) {}
    func write(_ piece: Piece, total: Int, to writer: inout ChunkWriter) {}
    func end(total: Int, to writer: inout ChunkWriter) {}
    func errorFrame(to writer: inout ChunkWriter) {}
    func whole(total: Int, complete: Bool) -> [UInt8] { document }
    var wholeError: [UInt8] { Array(#"{"error":{"message":"simulated error"}}"#.utf8) }
}
