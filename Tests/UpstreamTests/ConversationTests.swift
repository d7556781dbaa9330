import JSONCodec
import Testing

@testable import Upstream

struct ConversationTests {
    private static func normalized(_ messages: String) throws -> String {
        let body = try #require(try JSON(parsing: "{\"messages\":[\(messages)]}").object)
        return Conversation.normalized(body)["messages"]?.text ?? ""
    }

    @Test(arguments: [
        (
            #"{"role":"user","content":"a"},{"role":"assistant","content":"\n\n"},{"role":"user","content":"b"}"#,
            #"[{"role":"user","content":"a\n\nb"}]"#
        ),
        (
            #"{"role":"user","content":"a"},{"role":"user","content":[{"type":"text","text":" "},{"type":"text","text":"b"}]}"#,
            #"[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]"#
        ),
        (
            #"{"role":"user","content":"a","name":"x"},{"role":"user","content":"b"}"#,
            #"[{"role":"user","content":"a","name":"x"},{"role":"user","content":"b"}]"#
        ),
        (
            #"{"role":"assistant","content":"","tool_calls":[{"id":"c","function":{"name":"f","arguments":""}},{"id":"d","function":{"name":"g","arguments":{"a":1}}}]}"#,
            #"[{"role":"assistant","content":null,"tool_calls":[{"id":"c","function":{"name":"f","arguments":"{}"}},{"id":"d","function":{"name":"g","arguments":"{\"a\":1}"}}]}]"#
        ),
        (#"{"role":"user","content":""}"#, #"[{"role":"user","content":""}]"#),
    ]) func `messages that providers refuse are changed`(_ messages: String, _ expected: String) throws {
        #expect(try Self.normalized(messages) == expected)
    }
}
