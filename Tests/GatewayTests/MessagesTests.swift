import Contract
import JSONCodec
import TestSupport
import Testing

@testable import Gateway
@testable import JobQueue

private let usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)

private func message(_ members: String = "") -> String {
    #"{"model":"asked","max_tokens":9,"messages":[{"role":"user","content":"hi"}]\#(members)}"#
}

@Suite(.redis, .timeLimit(.minutes(10))) struct MessagesTests {
    @Test func `a collected message, with the key in x-api-key`() async throws {
        try await withHTTPLab { lab in
            async let answer = lab.post(
                "/v1/messages", message(#","thinking":{"type":"adaptive"}"#), key: nil, headers: ["x-api-key": "tenant-a-test-key"])
            let worker = try await lab.claim()
            #expect(worker.job.owner == "tenant-a" && worker.job.request["max_tokens"] == 9)
            try await worker.write(.upstream(name: "u", model: "real"), .reasoning("hm"), .text("he"), .text("llo"))
            try await worker.write(.toolCall(ToolCall(index: 0, callID: "c1", name: "f", arguments: #"{"a":1}"#)))
            try await worker.end(.finished(.toolCalls, usage))
            let whole = try await answer
            #expect(whole.status == 200 && whole.headers["request-id"] == worker.job.id.rawValue)
            #expect(
                whole.json == [
                    "id": .string("msg_\(worker.job.id)"), "type": "message", "role": "assistant", "model": "real",
                    "content": [
                        ["type": "thinking", "thinking": "hm", "signature": ""], ["type": "text", "text": "hello"],
                        ["type": "tool_use", "id": "c1", "name": "f", "input": ["a": 1]],
                    ],
                    "stop_reason": "tool_use", "stop_sequence": .null, "usage": ["input_tokens": 1, "output_tokens": 2],
                ])
        }
    }

    @Test func `a streamed message`() async throws {
        try await withHTTPLab { lab in
            async let answer = lab.post("/v1/messages", message(#","stream":true"#))
            let worker = try await lab.claim()
            // Thinking was not asked for.
            try await worker.write(.upstream(name: "u", model: "real"), .reasoning("hm"), .text("he"), .text("llo"))
            try await worker.write(.toolCall(ToolCall(index: 0, callID: "c1", name: "f", arguments: "{}")))
            try await worker.end(.finished(.toolCalls, usage))
            let events = try await answer.body.split(separator: "\n\n").map { event in
                let lines = event.split(separator: "\n")
                let json = try JSON(parsing: lines[1].dropFirst("data: ".count).utf8)
                #expect("event: \(json["type"]?.string ?? "")" == lines[0])
                return json
            }
            #expect(
                events.map { $0["type"]?.string } == [
                    "message_start", "ping", "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
                    "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop",
                ])
            #expect(events[0]["message"]?["model"] == "real" && events[0]["message"]?["usage"]?["input_tokens"]?.integer ?? 0 > 0)
            #expect(events[2]["content_block"] == ["type": "text", "text": ""] && events[2]["index"] == 0)
            #expect(events[4]["delta"] == ["type": "text_delta", "text": "llo"])
            #expect(events[6]["content_block"] == ["type": "tool_use", "id": "c1", "name": "f", "input": [:]] && events[6]["index"] == 1)
            #expect(events[7]["delta"] == ["type": "input_json_delta", "partial_json": "{}"])
            #expect(events[9]["delta"]?["stop_reason"] == "tool_use" && events[9]["usage"] == ["input_tokens": 1, "output_tokens": 2])
        }
    }

    /// The events of a streamed answer to a message with these members.
    private func events(_ members: String, _ answer: [GenerationEvent]) throws -> [JSON] {
        let request = try MessagesRequest(parsing: Array(message(members).utf8), maximumDepth: 32)
        var stream = MessagesStream(id: JobID(partition: 0, milliseconds: 1), request.options, promptEstimate: 1)
        var out: [UInt8] = []
        for event in answer { _ = stream.take(event, out: &out) }
        return try String(decoding: out, as: UTF8.self).split(separator: "\n\n").compactMap { event in
            let json = try JSON(parsing: event.drop { $0 != "{" }.utf8)
            return json["type"] == "ping" ? nil : json
        }
    }

    private static let thought: [GenerationEvent] = [
        .reasoning("hm"), .reasoningMark(.signature("c2ln")), .reasoningMark(.redacted("ZGF0YQ==")), .text("so"),
        .finished(.stop, usage, stopSequence: "END"),
    ]

    @Test func `signatures of thinking and the stop sequence are passed on`() throws {
        let thinking = #","thinking":{"type":"enabled","budget_tokens":1024},"stop_sequences":["x","END"]"#
        let events = try events(thinking, Self.thought)
        #expect(
            events.dropFirst().map { $0["type"]?.string } == [
                "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop", "content_block_start",
                "content_block_stop", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop",
            ])
        #expect(events[1]["content_block"] == ["type": "thinking", "thinking": "", "signature": ""])
        #expect(events[3]["delta"] == ["type": "signature_delta", "signature": "c2ln"] && events[3]["index"] == 0)
        #expect(events[5]["content_block"] == ["type": "redacted_thinking", "data": "ZGF0YQ=="] && events[5]["index"] == 1)
        #expect(events[7]["content_block"] == ["type": "text", "text": ""] && events[7]["index"] == 2)
        #expect(events[10]["delta"] == ["stop_reason": "stop_sequence", "stop_sequence": "END"])

        let request = try MessagesRequest(parsing: Array(message(thinking).utf8), maximumDepth: 32)
        var collector = MessagesCollector(request.options)
        for event in Self.thought { _ = try collector.take(event) }
        let whole = try JSON(parsing: collector.body(id: JobID(partition: 0, milliseconds: 1), created: 0))
        #expect(
            whole["content"] == [
                ["type": "thinking", "thinking": "hm", "signature": "c2ln"], ["type": "redacted_thinking", "data": "ZGF0YQ=="],
                ["type": "text", "text": "so"],
            ])
        #expect(whole["stop_reason"] == "stop_sequence" && whole["stop_sequence"] == "END")
    }

    @Test func `omitted thinking has only its signature, and unwanted thinking is left out`() throws {
        let omitted = try events(#","thinking":{"type":"adaptive","display":"omitted"}"#, Self.thought)
        #expect(omitted[1]["content_block"] == ["type": "thinking", "thinking": "", "signature": ""])
        #expect(omitted[2]["delta"]?["signature"] == "c2ln" && omitted[3]["type"] == "content_block_stop")
        #expect(omitted[4]["content_block"]?["type"] == "redacted_thinking" && omitted[6]["content_block"]?["type"] == "text")
        // Without a signature, and a stop sequence that was not asked for.
        let unsigned = try events(
            #","thinking":{"type":"adaptive","display":"omitted"}"#,
            [.reasoning("hm"), .text("so"), .finished(.stop, usage, stopSequence: "x")])
        #expect(unsigned[1]["content_block"]?["type"] == "text" && unsigned[1]["index"] == 0)
        #expect(unsigned[4]["delta"] == ["stop_reason": "end_turn", "stop_sequence": .null])
        let none = try events("", Self.thought)
        #expect(none[1]["content_block"]?["type"] == "text" && none[1]["index"] == 0)
    }

    @Test(arguments: [false, true]) func `errors have Anthropic's form`(streams: Bool) async throws {
        // Without a head before the failure, which a busy machine may delay.
        try await withHTTPLab(settings: { $0.streamHeadDelay = .seconds(600) }) { lab in
            let unauthenticated = try await lab.post("/v1/messages", message(), key: nil)
            #expect(unauthenticated.status == 401 && unauthenticated.json?["error"]?["type"] == "authentication_error")
            let invalid = try await lab.post("/v1/messages", #"{"model":"m"}"#)
            #expect(invalid.status == 400 && invalid.json?["type"] == "error" && invalid.json?["error"]?["type"] == "invalid_request_error")
            let unknown = try await lab.post("/v1/messages", message(#","stop":["x"]"#))
            #expect(unknown.json?["error"]?["message"]?.string?.contains("\"stop\"") == true, "\(unknown.body)")
            #expect(try await lab.get("/v1/messages").json?["type"] == "error")
            #expect(try await lab.get("/v1/messagesx").json?["type"] == nil)
            async let answer = lab.post("/v1/messages", message(streams ? #","stream":true"# : ""))
            let worker = try await lab.claim()
            try await worker.end(
                .failed(Failure(.unsupportedParameter, #"the request's "stop" is not supported by upstream u"#), .none))
            let failed = try await answer
            #expect(failed.status == 400 && failed.json?["error"]?["message"]?.string?.contains("\"stop_sequences\"") == true)
            #expect(failed.json?["request_id"] == .string(worker.job.id.rawValue))
        }
    }

    @Test func `a failure after output is an error event, and so is an answer that begins anew`() async throws {
        try await withHTTPLab { lab in
            for event in [GenerationEvent.failed(Failure(.overloaded, "busy"), usage), .restarted] {
                async let answer = lab.post("/v1/messages", message(#","stream":true"#))
                let worker = try await lab.claim()
                try await worker.write(.text("he"))
                if event.isTerminal { try await worker.end(event) } else { try await worker.write(event) }
                let stream = try await answer
                #expect(stream.body.contains(#"event: error\#ndata: {"type":"error","error":{"type":"overloaded_error""#), "\(stream.body)")
                #expect(!stream.body.contains("message_stop"))
                if !event.isTerminal { try await worker.end(.interrupted(Interruption(reason: "X", phase: .streaming, usage: usage))) }
            }
        }
    }

    @Test(arguments: [false, true]) func `a disconnect interrupts the job`(streams: Bool) async throws {
        try await withHTTPLab { lab in
            let connection = try await RawHTTPConnection(lab.port)
            try await connection.request("POST", "/v1/messages", body: message(streams ? #","stream":true"# : ""))
            let worker = try await lab.claim()
            try await worker.write(.text("he"))
            if streams { try await connection.wait(for: #""text":"he""#) }
            try await connection.close()
            try await until("the interrupt") {
                try await PrivateRedis.current.command("EXISTS", lab.queue.keys.interrupt(worker.job.id)).integer == 1
            }
            try await worker.end(.interrupted(Interruption(reason: "CLIENT_GONE", phase: .streaming, usage: usage)))
        }
    }

    @Test func `an upstream counts tokens, and without its count there is an estimate`() async throws {
        try await withHTTPLab { lab in
            let worker = lab.queue.keys.worker("w")
            _ = try await PrivateRedis.current.command("ZADD", lab.queue.keys.workers, "1", "w")
            _ = try await PrivateRedis.current.command("HSET", worker, "counted_models", #"["m"]"#)
            let body = #"{"model":"m","system":"s","messages":[{"role":"user","content":"12345678"}]}"#
            func post() async throws -> HTTPAnswer { try await lab.post("/v1/messages/count_tokens", body) }
            async let exact = post()
            let job = try await lab.claim()
            #expect(job.job.countsTokens && job.job.request["messages"]?[0]?["content"] == "s" && job.job.deadlineMilliseconds != nil)
            try await job.write(.upstream(name: "u", model: "m"), .text("4"), .text("2"))
            try await job.end(.finished(.stop, .none))
            let counted = try await exact
            #expect(counted.json == ["input_tokens": 42] && counted.headers["x-sluice-token-count"] == "exact")
            async let failed = post()
            try await lab.claim().end(.failed(Failure(.unsupportedParameter, #"the request's "count_tokens" is not supported"#), .none))
            let fallback = try await failed
            #expect(fallback.status == 200 && fallback.headers["x-sluice-token-count"] == "estimated")
            let other = try await lab.post("/v1/messages/count_tokens", body.replacing("\"m\"", with: "\"n\""))
            #expect(other.headers["x-sluice-token-count"] == "estimated", "no upstream counts this model")
        }
    }

    @Test func `an estimate of tokens says so`() async throws {
        try await withHTTPLab { lab in
            let answer = try await lab.post(
                "/v1/messages/count_tokens", #"{"model":"m","messages":[{"role":"user","content":"12345678"}]}"#)
            #expect(answer.status == 200 && answer.json == ["input_tokens": 7])
            #expect(answer.headers["x-sluice-token-count"] == "estimated")
            #expect(try await lab.post("/v1/messages/count_tokens", #"{"model":"m"}"#).status == 400)
        }
    }
}
