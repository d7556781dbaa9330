import JSONCodec
import Testing

@testable import Gateway

@Suite struct MessagesRequestTests {
    private func parse(_ body: String, counts: Bool = false) throws -> MessagesRequest {
        try MessagesRequest(parsing: Array(body.utf8), maximumDepth: 32, counts: counts)
    }

    /// A body with these members beside the required ones.
    private func body(_ members: String, messages: String = #"[{"role":"user","content":"hi"}]"#) -> String {
        #"{"model":"m","max_tokens":9,"messages":\#(messages)\#(members.isEmpty ? "" : "," + members)}"#
    }

    private func chat(_ members: String, messages: String = #"[{"role":"user","content":"hi"}]"#) throws -> JSON {
        .object(try parse(body(members, messages: messages)).conversation.chatBody)
    }

    @Test func `a request becomes a chat completions body`() throws {
        let chat = try chat(
            #""system":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}},{"type":"text","text":"b"}],"#
                + #""temperature":0.10,"top_k":5,"stop_sequences":["x"],"metadata":{"user_id":"u"},"#
                + #""thinking":{"type":"enabled","budget_tokens":1024},"output_config":{"effort":"low"}"#)
        #expect(
            chat.text
                == #"{"model":"m","messages":[{"role":"system","content":[{"type":"text","text":"a","#
                + #""anthropic":{"cache_control":{"type":"ephemeral"}}},{"type":"text","text":"b"}]},{"role":"user","content":"hi"}],"max_tokens":9,"#
                + #""stop":["x"],"reasoning_effort":"low","user":"u","temperature":0.10,"top_k":5,"#
                + #""thinking":{"type":"enabled","budget_tokens":1024}}"#)
    }

    @Test func `images, calls and results keep their order`() throws {
        let messages = try chat(
            "",
            messages: """
                [{"role":"user","content":[{"type":"text","text":"look"},
                  {"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA=="}},
                  {"type":"image","source":{"type":"url","url":"https://e/x.png"}}]},
                 {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"so"},
                  {"type":"tool_use","id":"t1","name":"f","input":{"a":1}}]},
                 {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","is_error":true,"content":[{"type":"text","text":"no"}]},
                  {"type":"text","text":"again"}]}]
                """)["messages"]
        #expect(messages?[0]?["content"]?[1]?["image_url"]?["url"] == "data:image/png;base64,AA==")
        #expect(messages?[0]?["content"]?[2]?["image_url"]?["url"] == "https://e/x.png")
        #expect(
            messages?[1]?["content"] == [["type": "thinking", "thinking": "hm", "signature": "s"], ["type": "text", "text": "so"]])
        #expect(messages?[1]?["tool_calls"]?[0]?["function"] == ["name": "f", "arguments": #"{"a":1}"#])
        #expect(
            messages?[2] == ["role": "tool", "tool_call_id": "t1", "content": "[error]\nno", "anthropic": ["is_error": true]])
        #expect(messages?[3] == ["role": "user", "content": "again"])
    }

    @Test func `what only Anthropic understands is kept apart`() throws {
        let chat = try chat(
            #""cache_control":{"type":"ephemeral","ttl":"1h"},"service_tier":"standard_only","tools":[{"name":"f","input_schema":{},"#
                + #""cache_control":{"type":"ephemeral"},"eager_input_streaming":true}]"#,
            messages: """
                [{"role":"user","content":[{"type":"text","text":"q","cache_control":{"type":"ephemeral"}}]},
                 {"role":"assistant","content":[{"type":"thinking","thinking":"unsigned","signature":""},
                  {"type":"redacted_thinking","data":"d"},{"type":"tool_use","id":"t1","name":"f","input":{},"cache_control":{"type":"ephemeral"}},
                  {"type":"thinking","thinking":"","signature":"s"},{"type":"tool_use","id":"t2","name":"f","input":{}}]},
                 {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"r","cache_control":{"type":"ephemeral"}}]},
                  {"type":"tool_result","tool_use_id":"t2","content":"r"}]}]
                """)
        let cached: JSON = ["cache_control": ["type": "ephemeral"]]
        #expect(chat["anthropic"] == ["cache_control": ["type": "ephemeral", "ttl": "1h"], "service_tier": "standard_only"])
        #expect(chat["tools"]?[0]?["anthropic"] == ["cache_control": ["type": "ephemeral"], "eager_input_streaming": true])
        let messages = chat["messages"]
        #expect(messages?[0]?["content"] == [["type": "text", "text": "q", "anthropic": cached]])
        #expect(messages?[1]?["content"] == [["type": "redacted_thinking", "data": "d"]])
        #expect(messages?[1]?["tool_calls"]?[0]?["anthropic"] == cached && messages?[1]?["tool_calls"]?[1] == nil)
        #expect(messages?[2]?["content"] == [["type": "thinking", "thinking": "", "signature": "s"]])
        #expect(messages?[2]?["tool_calls"]?[0]?["id"] == "t2")
        #expect(messages?[3]?["content"] == [["type": "text", "text": "r", "anthropic": cached]] && messages?[4]?["content"] == "r")
    }

    @Test func `tools and their choice`() throws {
        let tools = #""tools":[{"name":"f","description":"d","input_schema":{"type":"object"}}]"#
        let chat = try chat(tools + #","tool_choice":{"type":"tool","name":"f","disable_parallel_tool_use":true}"#)
        #expect(
            chat["tools"]?[0] == ["type": "function", "function": ["name": "f", "description": "d", "parameters": ["type": "object"]]])
        #expect(chat["tool_choice"] == ["type": "function", "function": ["name": "f"]] && chat["parallel_tool_calls"] == false)
        #expect(try self.chat(tools + #","tool_choice":{"type":"any"}"#)["tool_choice"] == "required")
    }

    @Test(arguments: [
        (#""mcp_servers":[]"#, "mcp_servers"), (#""container":"c"# + "\"", "container"),
        (#""tools":[{"type":"web_search_20250305","name":"web_search"}]"#, "tools[0].type"),
        (#""tools":[{"name":"f","unknown":1}]"#, "tools[0].unknown"), (#""thinking":{"type":"enabled"}"#, "thinking.budget_tokens"),
        (#""stop_sequences":[1]"#, "stop_sequences"), (#""metadata":{"other":1}"#, "metadata.other"), (#""stream":1"#, "stream"),
        (#""system":[{"type":"image"}]"#, "system[0].type"), (#""output_config":{"format":{"type":"xml"}}"#, "output_config.format.type"),
        (#""tool_choice":{"type":"any"}"#, "tool_choice"), (#""cache_control":1"#, "cache_control"), (#""service_tier":1"#, "service_tier"),
        (#""top_p":"1""#, "top_p"),
    ])
    func `what cannot be honoured is refused by name`(members: String, field: String) {
        let failure = #expect(throws: HTTPErrorResponse.self) { try parse(body(members)) }
        #expect(failure?.message.contains("\"\(field)\"") == true, "\(String(describing: failure))")
    }

    @Test(arguments: [
        (#"[{"role":"system","content":"x"}]"#, "messages[0].role"), (#"[]"#, "messages"),
        (#"[{"role":"user","content":[{"type":"document","source":{}}]}]"#, "messages[0].content[0].type"),
        (#"[{"role":"user","content":[{"type":"image","source":{"type":"file","file_id":"f"}}]}]"#, "messages[0].content[0].source.type"),
        (#"[{"role":"user","content":[{"type":"tool_result","content":"x"}]}]"#, "messages[0].content[0].tool_use_id"),
        (#"[{"role":"assistant","content":[{"type":"tool_use","id":"i","name":"n","input":"x"}]}]"#, "messages[0].content[0].input"),
        (#"[{"role":"user"}]"#, "messages[0].content"),
    ])
    func `an invalid message is refused by name`(messages: String, field: String) {
        let failure = #expect(throws: HTTPErrorResponse.self) { try parse(body("", messages: messages)) }
        #expect(failure?.message.contains("\"\(field)\"") == true, "\(String(describing: failure))")
    }

    @Test func `only a count needs no maximum`() throws {
        let body = #"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#
        #expect(try parse(body, counts: true).conversation.maximumTokens == nil)
        let failure = #expect(throws: HTTPErrorResponse.self) { try parse(body) }
        #expect(failure?.message.contains("\"max_tokens\"") == true)
    }
}
