import Contract
import JSONCodec
import Testing

@testable import Gateway

@Suite struct ResponsesRequestTests {
    private let id = JobID(partition: 0, milliseconds: 1)

    private func parse(_ members: String) throws -> ResponsesRequest {
        try ResponsesRequest(parsing: Array("{\(members)}".utf8), maximumDepth: 32, id: id, defaultModel: "house")
    }

    @Test func `a request becomes a conversation`() throws {
        let request = try parse(
            #""model":"m","input":"hi","instructions":"be brief","max_output_tokens":9,"temperature":0.10,"user":"u","metadata":{"a":"b"},"#
                + #""tools":[{"type":"function","name":"f","parameters":{"type":"object"},"strict":true}],"tool_choice":"required","#
                + #""text":{"format":{"type":"json_schema","name":"n","schema":{}},"verbosity":"low"},"reasoning":{"effort":"low","summary":"auto"}"#
        )
        #expect(
            JSON.object(request.conversation.chatBody).text
                == #"{"model":"m","messages":[],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"},"#
                + #""strict":true}}],"tool_choice":"required","max_tokens":9,"response_format":{"type":"json_schema","json_schema":"#
                + #"{"name":"n","schema":{}}},"reasoning_effort":"low","user":"u","verbosity":"low","temperature":0.10}"#)
        #expect(request.instructions == "be brief" && request.summarizes && request.isStored && !request.isBackground)
        #expect(request.echo["metadata"] == ["a": "b"] && request.echo["tools"]?[0]?["name"] == "f")
        #expect(
            request.items == [
                [
                    "type": "message", "role": "user", "content": [["type": "input_text", "text": "hi"]],
                    "id": .string("msg_\(id)_in0"), "status": "completed",
                ]
            ])
        #expect(try parse(#""input":"hi""#).echo["model"] == "house")
    }

    @Test func `items become messages`() throws {
        let items = try parse(
            #""input":[{"role":"developer","content":"d"},{"role":"user","content":[{"type":"input_text","text":"a"},"#
                + #"{"type":"input_image","image_url":"https://e/x.png","detail":"low"}]},{"type":"reasoning","id":"r","summary":[]},"#
                + #"{"type":"message","role":"assistant","content":[{"type":"output_text","text":"b","annotations":[]}]},"#
                + #"{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},{"type":"function_call","call_id":"c2","name":"g"},"#
                + #"{"type":"function_call_output","call_id":"c2","output":"o"},{"role":"user","content":"u"}]"#
        ).items
        let messages = try ResponseItems.closed(ResponseItems.messages(of: items))
        #expect(
            messages == [
                .system([.text("d")]), .user([.text("a"), .image(url: "https://e/x.png", detail: "low")]),
                .assistant(
                    [.text("b")],
                    calls: [.init(id: "c1", name: "f", arguments: "{}"), .init(id: "c2", name: "g", arguments: "{}")]),
                .toolResult(callID: "c2", [.text("o")]),
                // The call without a result does not spoil the conversation.
                .toolResult(callID: "c1", [.text("[no result: the call was interrupted or ignored]")]), .user([.text("u")]),
            ])
        #expect(throws: HTTPErrorResponse.self) {
            try ResponseItems.closed(ResponseItems.messages(of: [["type": "function_call_output", "call_id": "c9", "output": "o"]]))
        }
    }

    @Test(arguments: [
        (#""model":"m""#, "input"), (#""input":[]"#, "input"), (#""input":[{"type":"item_reference","id":"x"}]"#, "input[0].type"),
        (#""input":[{"role":"user","content":[{"type":"input_file","file_id":"f"}]}]"#, "input[0].content[0].type"),
        (#""input":[{"role":"user","content":[{"type":"input_image","file_id":"f"}]}]"#, "input[0].content[0].file_id"),
        (#""input":[{"role":"tool","content":"x"}]"#, "input[0].role"), (#""input":"x","max_tool_calls":1"#, "max_tool_calls"),
        (#""input":"x","tools":[{"type":"web_search"}]"#, "tools[0].type"), (#""input":"x","truncation":"auto""#, "truncation"),
        (#""input":"x","include":["message.output_text.logprobs"]"#, "include"), (#""input":"x","prompt":{}"#, "prompt"),
        (#""input":"x","conversation":"c""#, "conversation"), (#""input":"x","background":true,"store":false"#, "background"),
        (#""input":"x","metadata":{"a":1}"#, "metadata"), (#""input":"x","text":{"format":{"type":"xml"}}"#, "text.format.type"),
        (#""input":"x","service_tier":"flex""#, "service_tier"), (#""input":"x","max_output_tokens":0"#, "max_output_tokens"),
    ])
    func `what cannot be honoured is refused by name`(members: String, field: String) {
        let failure = #expect(throws: HTTPErrorResponse.self) { try parse(members) }
        #expect(failure?.message.contains("\"\(field)\"") == true, "\(String(describing: failure))")
    }
}
