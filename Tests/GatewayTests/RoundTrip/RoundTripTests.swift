import Contract
import CurlTransport
import JSONCodec
import TestSupport
import Testing

@testable import Gateway
@testable import Upstream

/// Random conversations and answers over each API and each provider: nothing is lost that both sides can express, and what one of them
/// cannot is refused by name. See `Fuzz` for the settings.
@Suite struct RoundTripTests {
    private static func upstream(_ kind: UpstreamConfiguration.Kind) -> UpstreamConfiguration {
        UpstreamConfiguration(name: "u", kind: kind, url: "http://host", key: nil)
    }

    /// Whether a failure names one of the fields, or one of its parts.
    private static func names(_ failure: Failure, _ names: Set<String>) -> Bool {
        failure.code == .unsupportedParameter && names.contains { failure.message.contains("\"\($0)\"") }
    }

    @Test(arguments: RoundTripTalk.API.allCases, UpstreamConfiguration.Kind.allCases)
    func `a conversation reaches the provider whole, or is refused by name`(
        _ api: RoundTripTalk.API, _ kind: UpstreamConfiguration.Kind
    ) async throws {
        let upstream = Self.upstream(kind)
        for number in 0..<Fuzz.inputs(300) {
            var random = SplitMix64(seed: Fuzz.seed(of: number))
            let talk = RoundTripTalk(api, &random)
            let refusals = talk.refusals(kind)
            let place = "seed \(Fuzz.seed), input \(number)"
            do {
                let request = Upstream.GenerationRequest(jobID: JobID(partition: 0, milliseconds: 1), body: try talk.chatBody(api))
                let body = try JSON(parsing: upstream.adapter.request(request, on: upstream).body)
                guard refusals.isEmpty else {
                    Issue.record("\(place): \(refusals) was not refused: \(body.text)")
                    return
                }
                let arrived = try RoundTripTalk(kind, sent: body)
                guard arrived == talk.projected(kind) else {
                    Issue.record("\(place):\n\(arrived)\nis not\n\(talk.projected(kind))\n\(body.text)")
                    return
                }
            } catch let failure as Failure {
                guard Self.names(failure, refusals) else {
                    Issue.record("\(place): \(failure), expected of \(refusals)")
                    return
                }
            }
        }
    }

    @Test(arguments: RoundTripTalk.API.allCases, UpstreamConfiguration.Kind.allCases)
    func `an answer reaches the client whole`(_ api: RoundTripTalk.API, _ kind: UpstreamConfiguration.Kind) async throws {
        for number in 0..<Fuzz.inputs(300) {
            var random = SplitMix64(seed: Fuzz.seed(of: number))
            let reply = RoundTripReply(kind, &random)
            let type = kind == .ollama ? "application/x-ndjson" : "text/event-stream"
            let decoder = try Self.upstream(kind).adapter.decoder(for: HTTPResponseHead(status: 200, contentType: type))
            var batch = OutputBatch()
            try decoder.receive(Array(reply.stream(kind).utf8).span, into: &batch)
            try decoder.finish(into: &batch)
            let shown = try RoundTripReply(api, batch.events)
            guard shown == reply.projected(api) else {
                Issue.record("seed \(Fuzz.seed), input \(number):\n\(shown)\nis not\n\(reply.projected(api))\n\(reply.stream(kind))")
                return
            }
        }
    }
}

extension OutputBatch {
    /// The events that a worker writes for the outputs.
    fileprivate var events: [GenerationEvent] {
        var events: [GenerationEvent] = [.upstream(name: "u", model: "m")]
        var usage = Usage(promptTokens: 0, completionTokens: 0, estimated: false)
        for output in outputs {
            switch output {
            case .text(let text): events.append(.text(text))
            case .reasoning(let text): events.append(.reasoning(text))
            case .reasoningMark(let mark): events.append(.reasoningMark(mark))
            case .toolCall(let call): events.append(.toolCall(call))
            case .usage(let prompt, let completion, _):
                usage.promptTokens = prompt ?? usage.promptTokens
                usage.completionTokens = completion ?? usage.completionTokens
            case .finished(let reason, let stopSequence): events.append(.finished(reason, usage, stopSequence: stopSequence))
            }
        }
        return events
    }
}
