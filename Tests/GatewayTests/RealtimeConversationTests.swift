import Contract
import JSONCodec
import Support
import Testing

@testable import Gateway

@Suite struct RealtimeItemsTests {
    private func item(_ id: String, _ kind: RealtimeItem.Kind) -> RealtimeItem { RealtimeItem(id: id, kind: kind) }

    private func roles(_ items: RealtimeItems) -> [String] {
        var conversation = Conversation()
        conversation.messages = RealtimeItems.messages(of: items.items)
        return (conversation.chatBody["messages"]?.array ?? []).map { message in
            let role = message["role"]?.string ?? ""
            return role == "tool" ? "tool:\(message["tool_call_id"]?.string ?? "")" : role + (message["tool_calls"] == nil ? "" : "+calls")
        }
    }

    @Test func `results follow their calls, and calls without a result get one`() throws {
        var items = RealtimeItems(maximumSize: 10_000)
        _ = try items.insert(item("a", .message(.user, [.text("hi")])))
        _ = try items.insert(item("b", .message(.assistant, [.speech(transcript: "well")])))
        _ = try items.insert(item("c", .call(.init(id: "1", name: "f", arguments: "{}"))))
        _ = try items.insert(item("d", .call(.init(id: "2", name: "f", arguments: "{}"))))
        _ = try items.insert(item("e", .message(.user, [.text("never mind")])))
        _ = try items.insert(item("f", .output(callID: "2", "late")))
        #expect(roles(items) == ["user", "assistant+calls", "tool:2", "tool:1", "user"])
        _ = items.delete("d")
        #expect(roles(items) == ["user", "assistant+calls", "tool:1", "user"], "a result without its call is left out")
    }

    @Test func `audio that was not recognized is an empty message at the end`() throws {
        var items = RealtimeItems(maximumSize: 10_000)
        var spoken = item("a", .message(.user, [.audio(transcript: nil)]))
        spoken.audio = [1, 2]
        _ = try items.insert(spoken)
        _ = try items.insert(item("b", .message(.assistant, [])))
        #expect(roles(items) == ["user"] && items.audioSize == 2)
        items.update("a") {
            $0.audio = []
            $0.setTranscript("hello")
        }
        #expect(items.item("a")?.json["content"]?[0]?["transcript"] == "hello" && items.audioSize == 0)
    }

    @Test func `items are placed, and the oldest give way`() throws {
        var items = RealtimeItems(maximumSize: 400)
        #expect(try items.insert(item("a", .message(.user, [.text("1")]))) == nil)
        #expect(try items.insert(item("b", .message(.user, [.text("2")]))) == "a")
        #expect(try items.insert(item("c", .message(.user, [.text("3")])), after: "root") == nil)
        #expect(try items.insert(item("d", .message(.user, [.text("4")])), after: "a") == "a")
        #expect(items.items.map(\.id) == ["c", "a", "d", "b"])
        #expect(throws: RealtimeError.self) { try items.insert(item("a", .message(.user, [.text("again")]))) }
        #expect(throws: RealtimeError.self) { try items.insert(item("x", .message(.user, [.text("5")])), after: "unknown") }
        #expect(throws: RealtimeError.self) {
            try items.insert(item("y", .message(.user, [.text(String(repeating: "y", count: 500))])))
        }
        _ = try items.insert(item("z", .message(.user, [.text(String(repeating: "z", count: 150))])))
        #expect(items.size <= 400 && items.items.first?.id != "c" && items.items.last?.id == "z")
    }

    @Test func `a spoken answer is cut to what was heard`() {
        var item = item("a", .message(.assistant, [.speech(transcript: "One two three. Four five six.")]))
        var spoken = SpokenText()
        // A second of audio for each sentence.
        for (index, start) in [0, 15].enumerated() {
            spoken.receive(
                Audio(
                    index: index, format: "pcm", data: Base64.encode([UInt8](repeating: 0, count: 48_000)), last: index == 1,
                    textOffset: start, textEnd: start + 14))
        }
        item.spoken = spoken
        item.truncate(1_000)
        #expect(item.json["content"]?[0]?["transcript"]?.string?.hasPrefix("One two three.") == true)
        #expect(item.json["content"]?[0]?["transcript"]?.string?.contains("six") == false)
        item.truncate(0)
        #expect(item.json["content"]?[0]?["transcript"] == "")
    }
}

@Suite struct RealtimeResponseTests {
    private func response(_ modality: RealtimeConfiguration.Modality) throws -> RealtimeResponse {
        var configuration = RealtimeConfiguration(model: "m", detectsTurns: false)
        configuration.modality = modality
        return RealtimeResponse(
            jobID: try #require(JobID("p0-x")), configuration: configuration, isOutOfBand: false, metadata: .null, audioItems: [])
    }

    private func types(_ response: inout RealtimeResponse, _ events: [GenerationEvent]) -> [String] {
        var types: [String] = []
        for event in events {
            response.receive(event, spoken: SpokenText()) { step in
                switch step {
                case .send(let type, _): types.append(type)
                case .add: types.append("+item")
                case .complete(let item): types.append("=item \(item.status.rawValue)")
                case .retract(let id): types.append("-\(id)")
                case .transcribed(let text): types.append("transcript \(text)")
                case .recognitionFailed: types.append("recognition failed")
                }
            }
        }
        return types
    }

    private static let usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)
    private static let call = GenerationEvent.toolCall(ToolCall(index: 0, callID: "c1", name: "f", arguments: #"{"a":1}"#))

    @Test func `the events of a text and of a call are in their published order`() throws {
        var response = try response(.text)
        #expect(
            types(&response, [.text("he"), .text("llo"), Self.call, .finished(.toolCalls, Self.usage)]) == [
                "+item", "response.output_item.added", "response.content_part.added", "response.output_text.delta",
                "response.output_text.delta", "response.output_text.done", "response.content_part.done", "=item completed",
                "response.output_item.done", "+item", "response.output_item.added", "response.function_call_arguments.delta",
                "response.function_call_arguments.done", "=item completed", "response.output_item.done", "response.done",
            ])
        #expect(response.json["status"] == "completed" && response.json["output"]?[0]?["content"]?[0]?["text"] == "hello")
        #expect(response.json["usage"]?["output_tokens"] == 2)
    }

    @Test func `audio that follows a call belongs to the open message`() throws {
        var response = try response(.audio)
        let audio = GenerationEvent.audio(Audio(index: 0, format: "pcm", data: "AAAA", last: false))
        let events = types(&response, [.text("hello"), Self.call, audio, .finished(.toolCalls, Self.usage)])
        #expect(
            events == [
                "+item", "response.output_item.added", "response.content_part.added", "response.output_audio_transcript.delta", "+item",
                "response.output_item.added", "response.function_call_arguments.delta", "response.function_call_arguments.done",
                "=item completed", "response.output_item.done", "response.output_audio.delta", "response.output_audio.done",
                "response.output_audio_transcript.done", "response.content_part.done", "=item completed", "response.output_item.done",
                "response.done",
            ])
        #expect(response.json["output"]?[0]?["content"]?[0]?["transcript"] == "hello")
    }

    @Test func `nothing follows a cancellation but the end`() throws {
        var response = try response(.text)
        _ = types(&response, [.text("he")])
        response.cancel(.turn)
        let events = types(
            &response, [.text("llo"), Self.call, .restarted, .interrupted(Interruption(reason: "x", phase: .streaming, usage: Self.usage))])
        #expect(
            events == [
                "response.output_text.done", "response.content_part.done", "=item incomplete", "response.output_item.done", "response.done",
            ])
        #expect(response.json["status"] == "cancelled" && response.json["status_details"]?["reason"] == "turn_detected")
        #expect(response.json["output"]?[0]?["content"]?[0]?["text"] == "he")
    }

    @Test func `an end that crossed the cancellation is a cancelled response`() throws {
        var response = try response(.text)
        response.cancel(.client)
        #expect(types(&response, [.finished(.stop, Self.usage)]) == ["response.done"])
        #expect(response.json["status"] == "cancelled" && response.json["status_details"]?["reason"] == "client_cancelled")
    }

    @Test func `output before a restart is retracted`() throws {
        var response = try response(.text)
        _ = types(&response, [.text("abc"), .text("def")])
        let events = types(&response, [.resumed(textOffset: 4), .text("e"), .finished(.stop, Self.usage)])
        #expect(events.contains("-item_p0-x_0"))
        #expect(response.json["output"]?.array?.count == 1 && response.json["output"]?[0]?["content"]?[0]?["text"] == "abcde")
        #expect(response.json["output"]?[0]?["id"] == "item_p0-x_1")
    }

    @Test func `calls without a usable id get one`() throws {
        var response = try response(.text)
        let call = GenerationEvent.toolCall(ToolCall(index: 0, callID: "", name: "f", arguments: "not JSON"))
        _ = types(&response, [call, call, .finished(.toolCalls, Self.usage)])
        let output = response.json["output"]?.array ?? []
        #expect(Set(output.compactMap { $0["call_id"]?.string }).count == 2 && output.allSatisfy { $0["arguments"] == "{}" })
    }
}
