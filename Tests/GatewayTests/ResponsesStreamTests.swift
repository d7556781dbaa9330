import Contract
import JSONCodec
import Testing

@testable import Gateway

private let usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)

@Suite struct ResponsesStreamTests {
    private let object = ResponseObject(
        id: JobID(partition: 0, milliseconds: 1), created: 7, isBackground: true, summarizes: false,
        echo: JSONObject([.init(name: "model", value: "asked")]))

    /// All events of a stream of these job events.
    private func stream(_ events: [GenerationEvent], after: Int? = nil) throws -> [JSON] {
        var stream = ResponsesStream(object, after: after)
        var out: [UInt8] = []
        stream.begin(out: &out)
        var step = StreamStep.goOn
        for event in events { step = stream.take(event, out: &out) }
        #expect(step == (events.last?.isTerminal == true ? .end : .goOn))
        return try String(decoding: out, as: UTF8.self).split(separator: "\n\n").map { event in
            let lines = event.split(separator: "\n")
            let json = try JSON(parsing: lines[1].dropFirst("data: ".count).utf8)
            #expect("event: \(json["type"]?.string ?? "")" == lines[0])
            return json
        }
    }

    private let whole: [GenerationEvent] = [
        .started(worker: "w", attempt: 1), .upstream(name: "u", model: "real"), .reasoning("hm"), .text("he"), .text("llo"),
        .toolCall(ToolCall(index: 0, callID: "c", name: "f", arguments: "{}")), .finished(.toolCalls, usage),
    ]

    @Test func `events in their published order`() throws {
        let events = try stream(whole)
        #expect(
            events.compactMap { $0["type"]?.string?.dropFirst("response.".count).description } == [
                "created", "queued", "in_progress", "output_item.added", "content_part.added", "reasoning_text.delta",
                "reasoning_text.done", "content_part.done", "output_item.done", "output_item.added", "content_part.added",
                "output_text.delta", "output_text.delta", "output_text.done", "content_part.done", "output_item.done",
                "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done", "completed",
            ])
        #expect(events.map { $0["sequence_number"]?.integer } == Array(0..<events.count))
        let response = events.last?["response"]
        #expect(response?["model"] == "real" && response?["status"] == "completed" && response?["usage"]?["total_tokens"] == 3)
        #expect(response?["output"]?.array?.compactMap { $0["type"]?.string } == ["reasoning", "message", "function_call"])
        #expect(response?["output"]?[1]?["id"] == events[9]["item"]?["id"])
    }

    @Test func `a resumed stream continues with the next number`() throws {
        let events = try stream(whole)
        for after in 0..<events.count { #expect(try stream(whole, after: after) == Array(events[(after + 1)...])) }
    }

    @Test func `reasoning carries what its provider needs to take it back`() throws {
        let events = try stream([
            .reasoning("hm"), .reasoningMark(.signature("sig")), .reasoningMark(.redacted("secret")), .text("he"), .finished(.stop, usage),
        ])
        #expect(events.map { $0["sequence_number"]?.integer } == Array(0..<events.count))
        let done = events.filter { $0["type"] == "response.output_item.done" }.map { $0["item"] ?? .null }
        #expect(done.map { $0["type"]?.string } == ["reasoning", "reasoning", "message"])
        let output = events.last?["response"]?["output"]?.array
        #expect(output == done && done[0]["content"]?[0]?["text"] == "hm" && done[1]["content"] == [])
        // The next request has the output among its items.
        let messages = try ResponseItems.messages(of: done + [["role": "user", "content": "more"]])
        #expect(
            messages == [
                .assistant([.reasoning("hm", signature: "sig"), .redactedReasoning("secret"), .text("he")], calls: []),
                .user([.text("more")]),
            ])
        // Reasoning without an answer, or of another service, is not sent.
        #expect(try ResponseItems.messages(of: Array(done[..<2])).isEmpty)
        for content in ["gAAAAABo", "?", "e30=", ""] { #expect(EncryptedReasoning.part(parsing: content) == nil) }
    }

    @Test func `an answer that begins anew replaces the items before`() throws {
        let events = try stream([.text("old"), .restarted, .text("new"), .finished(.stop, usage)])
        let done = events.filter { $0["type"] == "response.output_item.done" }
        #expect(done.map { $0["item"]?["status"]?.string } == ["incomplete", "completed"])
        #expect(done.map { $0["output_index"]?.integer } == [0, 1])
        #expect(events.last?["response"]?["output"]?.array?.map { $0["id"] } == [done[1]["item"]?["id"]])
    }

    @Test(arguments: [
        (GenerationEvent.finished(.length, usage), "incomplete", "incomplete"),
        (.finished(.contentFilter, usage), "incomplete", "incomplete"),
        (.interrupted(Interruption(reason: "USER_STOP", phase: .streaming, usage: usage)), "cancelled", "incomplete"),
        (.failed(Failure(.upstreamDisconnected, "broke"), usage), "failed", "incomplete"),
        (.finished(.stop, usage), "completed", "completed"),
    ]) func `the ending is a status`(ending: GenerationEvent, status: String, item: String) throws {
        let last = try stream([.text("he"), ending]).last
        #expect(last?["type"]?.string == "response.\(status)" && last?["response"]?["status"]?.string == status)
        #expect(last?["response"]?["output"]?[0]?["status"]?.string == item)
        #expect((last?["response"]?["error"]?.isNull == false) == (status == "failed"))
        #expect((last?["response"]?["incomplete_details"]?.isNull == false) == (status == "incomplete"))
    }
}
