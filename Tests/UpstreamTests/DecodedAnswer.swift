import Contract

@testable import CurlTransport
@testable import Upstream

/// What a decoder makes of one response.
struct DecodedAnswer: Equatable {
    var text = ""
    var reasoning = ""
    var calls: [ToolCall] = []
    var reason: FinishReason?
    var stopSequence: String?
    var marks: [ReasoningMark] = []
    var usages = 0
    /// The last reported details.
    var details = TokenDetails()
    var isComplete = false
    /// Whether the upstream said that the answer is over, before the end of the response.
    var isOver = false
    var failure: Failure?

    /// The tool calls without their ids.
    var names: [String] { calls.map { "\($0.index) \($0.name)\($0.arguments)" } }

    /// - Parameters:
    ///   - pieces: the body, as the network delivered it.
    ///   - type: the content type; nil: the one of the dialect's streams.
    init(_ kind: UpstreamConfiguration.Kind, _ pieces: [ArraySlice<UInt8>], type: String? = nil) throws {
        let type = type ?? (kind == .ollama ? "application/x-ndjson" : "text/event-stream")
        let decoder = try UpstreamConfiguration.at("http://x", kind: kind).adapter.decoder(
            for: HTTPResponseHead(status: 200, contentType: type))
        var batch = OutputBatch()
        do throws(Failure) {
            for piece in pieces { try decoder.receive(piece.span, into: &batch) }
            isOver = decoder.isOver
            try decoder.finish(into: &batch)
        } catch { failure = error }
        isComplete = decoder.isComplete
        read(batch.outputs)
    }

    /// The same of a call's recording.
    init(_ recording: Recording) {
        isComplete = recording.result == .complete
        failure = recording.failure?.failure
        read(recording.outputs)
    }

    private mutating func read(_ outputs: [UpstreamOutput]) {
        for output in outputs {
            switch output {
            case .text(let more): text += more
            case .reasoning(let more): reasoning += more
            case .toolCall(let call): calls.append(call)
            case .finished(let given, let sequence): (reason, stopSequence) = (given, sequence)
            case .reasoningMark(let mark): marks.append(mark)
            case .usage(_, _, let given):
                usages += 1
                details = TokenDetails(cached: given.cached ?? details.cached, reasoning: given.reasoning ?? details.reasoning)
            }
        }
    }

    init(_ kind: UpstreamConfiguration.Kind, _ body: [UInt8], type: String? = nil) throws {
        self = try DecodedAnswer(kind, [body[...]], type: type)
    }

    /// - Parameter frames: JSON texts, which are framed as in the dialect's streams.
    init(_ kind: UpstreamConfiguration.Kind, frames: [String]) throws {
        try self.init(kind, Self.body(kind, frames))
    }

    static func body(_ kind: UpstreamConfiguration.Kind, _ frames: [String]) -> [UInt8] {
        Array(frames.map { kind == .ollama ? "\($0)\n" : "data: \($0)\n\n" }.joined().utf8)
    }
}
