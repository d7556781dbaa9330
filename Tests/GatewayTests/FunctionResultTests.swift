import Contract
import JSONCodec
import TestSupport
import Testing

@testable import Gateway

/// Results of function calls in the messages of the next request.
@Suite struct FunctionResultTests {
    /// What strict providers require: each assistant message with calls is followed by one result for each of them and no others.
    private static func fault(in messages: [JSON]) -> String? {
        var open: [String] = []
        for message in messages {
            if message["role"] == "tool" {
                guard let id = message["tool_call_id"]?.string, let index = open.firstIndex(of: id) else { return "an unmatched result" }
                guard message["content"]?.string != nil else { return "a result without content" }
                open.remove(at: index)
                continue
            }
            guard open.isEmpty else { return "calls without results: \(open)" }
            open = (message["tool_calls"]?.array ?? []).compactMap { $0["id"]?.string }
        }
        return open.isEmpty ? nil : "calls without results: \(open)"
    }

    private struct Conversation {
        var history: ChatHistory
        var running: [RunningRequest] = []
        /// Calls with a result that the client gave.
        var answered: Set<String> = []
        var calls: [String] = []
        var random: SplitMix64
        var number = 0
        var sequence = 0

        init(seed: UInt64) {
            random = SplitMix64(seed: seed)
            history = ChatHistory(
                maximumTurns: Int.random(in: 1...6, using: &random), maximumSize: Int.random(in: 50...3_000, using: &random))
        }

        mutating func start(_ results: [FunctionResult]) throws -> [JSON] {
            number += 1
            let answered = try AnsweredCalls(results, history: history, running: running, requestID: "r")
            let continuation = answered.record(in: &history)
            let text = results.isEmpty ? "question \(number)" : nil
            let body = GenerationRequest.body(
                settings: SessionSettings(), history: history, turns: continuation.turns, text: text, model: nil)
            let job = try #require(JobID("p0-\(number)"))
            let machine = RelayMachine(requestID: "r\(number)", jobID: job, sessionID: "s", wantsReasoning: false, speaks: false)
            let request = RunningRequest(id: "r\(number)", jobID: job, text: text ?? "", speaks: false, machine: machine)
            request.restated = continuation.restated
            running.append(request)
            return body["messages"]?.array ?? []
        }

        mutating func produce() {
            guard let request = running.randomElement(using: &random) else { return }
            sequence += 1
            let id = "c\(calls.count)"
            let isCall = Int.random(in: 0..<2, using: &random) == 0
            let event: GenerationEvent =
                isCall ? .toolCall(ToolCall(index: 0, callID: id, name: "f", arguments: "{}")) : .text("word ")
            if isCall { calls.append(id) }
            request.machine.receive([LoggedEvent(id: EventID(attempt: 1, sequence: sequence), event: event)], milliseconds: 0, emit: nil)
        }

        mutating func end() {
            guard !running.isEmpty else { return }
            let request = running.remove(at: Int.random(in: running.indices, using: &random))
            if let turn = request.turn { history.append(turn) }
        }
    }

    @Test func `no provider refuses a request in 10,000 random conversations`() throws {
        var refusals: [String] = []
        for seed in 0..<10_000 as Range<UInt64> {
            var conversation = Conversation(seed: seed)
            for _ in 0..<12 {
                switch Int.random(in: 0..<6, using: &conversation.random) {
                case 0, 1: conversation.produce()
                case 2: conversation.end()
                case 3:
                    if let fault = Self.fault(in: try conversation.start([])) { refusals.append("seed \(seed): \(fault)") }
                default:
                    // Any calls, in any order, also ones that have a result already.
                    let ids = Set(
                        conversation.calls.shuffled(using: &conversation.random).prefix(Int.random(in: 1...3, using: &conversation.random)))
                    guard !ids.isEmpty else { continue }
                    let results = ids.shuffled(using: &conversation.random).map { FunctionResult(callID: $0, text: "result of \($0)") }
                    do {
                        let messages = try conversation.start(results)
                        if let fault = Self.fault(in: messages) { refusals.append("seed \(seed): \(fault)") }
                        for id in ids
                        where !messages.contains(where: { $0["tool_call_id"]?.string == id && $0["content"]?.string == "result of \(id)" })
                        {
                            refusals.append("seed \(seed): the result of \(id) is not in the request")
                        }
                    } catch let error as ProtocolError {
                        // The history has dropped the call.
                        #expect(error.code == .malformedPayload)
                    }
                }
            }
        }
        #expect(refusals.isEmpty, "\(refusals.count): \(refusals.prefix(3))")
    }

    @Test func `calls and results survive in the record of the session`() throws {
        var history = ChatHistory(maximumTurns: 5, maximumSize: 10_000)
        var turn = ChatHistory.Turn(user: "weather?", text: "Let me see.")
        turn.calls = [
            ChatHistory.Call(ToolCall(index: 0, callID: "a", name: "weather", arguments: #"{"city":"Bonn"}"#)),
            ChatHistory.Call(ToolCall(index: 1, callID: "", name: "clock", arguments: "not JSON")),
        ]
        history.append(turn)
        history.setResult("22 degrees", of: "a")
        #expect(ChatHistory(stored: history.json, maximumTurns: 5, maximumSize: 10_000) == history)
        #expect(
            history.messages == [
                ["role": "user", "content": "weather?"],
                [
                    "role": "assistant", "content": "Let me see.",
                    "tool_calls": [
                        ["id": "a", "type": "function", "function": ["name": "weather", "arguments": #"{"city":"Bonn"}"#]],
                        ["id": "call-1", "type": "function", "function": ["name": "clock", "arguments": "{}"]],
                    ],
                ],
                ["role": "tool", "tool_call_id": "a", "content": "22 degrees"],
                ["role": "tool", "tool_call_id": "call-1", "content": .string(ChatHistory.noResult)],
            ])
    }

    @Test func `a request with results has no text`() throws {
        func parse(_ text: String) throws -> RequestPayload { try RequestPayload(try #require(try JSON(parsing: text).object)) }
        let request = try parse(
            #"{"request_id":"r","data_type":"TEXT","function_results":[{"call_id":"a","result":{"x":1}},{"call_id":"b","result":"y"},{"call_id":"c","result":null}]}"#
        )
        #expect(request.results.map(\.text) == [#"{"x":1}"#, "y", "null"] && !request.isUpdateOnly)
        for text in [
            #"{"request_id":"r","data_type":"TEXT","function_results":{}}"#,
            #"{"request_id":"r","data_type":"TEXT","function_results":[{"call_id":"a"}]}"#,
            #"{"request_id":"r","data_type":"TEXT","function_results":[{"call_id":"a","result":1},{"call_id":"a","result":2}]}"#,
            #"{"request_id":"r","data_type":"TEXT","function_results":[{"call_id":"a","result":1}],"content":{"text":"x"}}"#,
        ] {
            let error = #expect(throws: ProtocolError.self, "\(text)") { try parse(text) }
            #expect(error?.code == .malformedPayload && error?.requestID == "r")
        }
    }
}
