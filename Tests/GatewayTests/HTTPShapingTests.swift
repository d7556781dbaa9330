import Contract
import HTTPTypes
import JSONCodec
import JobQueue
import NIOCore
import Testing

@testable import Gateway

private let job = JobID("p0-01JDTEST")!
private let usage = Usage(promptTokens: 3, completionTokens: 4, estimated: false)

@Suite struct HTTPFailureTests {
    @Test(arguments: [
        (FailureCode.invalidRequest, 400, "invalid_request_error"), (.unsupportedParameter, 400, "invalid_request_error"),
        (.contentFiltered, 400, "invalid_request_error"), (.modelNotFound, 404, "not_found_error"), (.rateLimited, 429, "rate_limit_error"),
        (.quotaExhausted, 429, "rate_limit_error"), (.authentication, 502, "upstream_error"), (.permission, 502, "upstream_error"),
        (.upstreamError, 502, "upstream_error"), (.upstreamUnreachable, 502, "upstream_error"),
        (.upstreamDisconnected, 502, "upstream_error"),
        (.upstreamTruncated, 502, "upstream_error"), (.upstreamProtocol, 502, "upstream_error"), (.outputTooLarge, 502, "upstream_error"),
        (.internal, 502, "upstream_error"), (.overloaded, 503, "server_error"), (.workerLost, 503, "server_error"),
        (.firstTokenTimeout, 504, "timeout_error"), (.idleTimeout, 504, "timeout_error"), (.totalTimeout, 504, "timeout_error"),
        (.deadlineExceeded, 504, "timeout_error"),
    ])
    func `a job's failure as an HTTP status`(code: FailureCode, status: Int, type: String) {
        let failure = HTTPErrorResponse(Failure(code, "why"))
        #expect(failure.status.code == status)
        #expect((failure.headers[.retryAfter] != nil) == (status == 429 || status == 503))
        #expect(failure.json == ["error": ["message": "why", "type": .string(type), "code": .string(code.rawValue)]])
    }

    @Test(arguments: [
        ("Bearer abc", "abc"), ("bearer abc", "abc"), ("BEARER  abc ", "abc"), ("Basic abc", nil), ("Bearer", nil), ("Bearer ", nil),
        ("abc", nil), ("Bearerabc", nil),
    ])
    func `bearer tokens`(header: String, token: String?) {
        #expect(AuthenticationMiddleware.bearer(header) == token)
    }
}

@Suite struct HTTPBodyTests {
    @Test(arguments: [
        (#"{}"#, "no \"request\""), (#"[]"#, "not a JSON object"), (#"{"request":{}"#, "not JSON"), (#""#, "not JSON"),
        (#"{"request":[]}"#, "\"request\""), (#"{"request":{},"id":"x"}"#, "\"id\""), (#"{"request":{},"owner":"x"}"#, "\"owner\""),
        (#"{"request":{},"session":null}"#, "\"session\""), (#"{"request":{},"sesion":"x"}"#, "\"sesion\""),
        (#"{"request":{},"class":"urgent"}"#, "\"class\""), (#"{"request":{},"total_timeout_ms":"1"}"#, "\"total_timeout_ms\""),
        (#"{"request":{"model":7}}"#, "\"model\""), (#"{"request":{},"speech":{"speed":"1"}}"#, "speech.speed"),
    ])
    func `the error for an invalid job names the field`(body: String, named: String) {
        #expect { try JobSubmission.job(parsing: Array(body.utf8), id: job, owner: "a", maximumDepth: 32) } throws: { error in
            guard let failure = error as? HTTPErrorResponse else { return false }
            return failure.status == .badRequest && failure.message.contains(named)
        }
    }

    @Test func `a job keeps its request unchanged`() throws {
        let body = #"{"request":{"model":"m","x":0.10,"big":9007199254740993},"class":"batch","on_crash":"fail"}"#
        let made = try JobSubmission.job(parsing: Array(body.utf8), id: job, owner: "acme", maximumDepth: 32)
        #expect(made.id == job && made.owner == "acme" && made.priority == .batch && made.onCrash == .fail)
        #expect(JSON.object(made.request).text == #"{"model":"m","x":0.10,"big":9007199254740993}"#)
        let plain = try JobSubmission.job(parsing: Array(#"{"request":{}}"#.utf8), id: job, owner: "acme", maximumDepth: 32)
        #expect(plain.priority == .standard)
    }

    @Test func `idempotency keys of different tenants never collide`() {
        #expect(JobSubmission.idempotencyKey("order:1", owner: "a") == "order:1")
        #expect(JobSubmission.idempotencyKey("", owner: "a") == nil)
        #expect(JobSubmission.idempotencyKey("a\u{1}b", owner: "a") == nil)
        #expect(JobSubmission.idempotencyKey(String(repeating: "k", count: 256), owner: "a") == nil)
        let one = JobSubmission.idempotencyKey("b:c", owner: "a").map { "a:" + $0 }
        let other = JobSubmission.idempotencyKey("c", owner: "a:b").map { "a:b:" + $0 }
        #expect(one != other)
        #expect(
            JobSubmission.digest(Array("abc".utf8)) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    }

    @Test(arguments: [
        ("", "USER_STOP"), ("{}", "USER_STOP"), (#"{"reason":null}"#, "USER_STOP"), (#"{"reason":"USER_NEW_INPUT"}"#, "USER_NEW_INPUT"),
        (#"{"reason":"my.own_reason-7"}"#, "my.own_reason-7"), (#"{"reason":""}"#, nil), (#"{"reason":1}"#, nil),
        (#"{"reason":"a b"}"#, nil),
        (#"{"reason":"\#(String(repeating: "r", count: 65))"}"#, nil), ("[]", nil), ("{", nil),
    ])
    func `interrupt reasons`(body: String, reason: String?) {
        #expect((try? JobRoutes.reason(parsing: Array(body.utf8))) == reason)
    }

    @Test(arguments: [
        (#"{"messages":[]}"#, "messages"), (#"{}"#, "messages"), (#"{"messages":"hi"}"#, "messages"), (#"{"messages":["hi"]}"#, "messages"),
        (#"{"messages":[{}],"n":2}"#, "\"n\""), (#"{"messages":[{}],"n":"1"}"#, "\"n\""), (#"{"messages":[{}],"stream":1}"#, "\"stream\""),
        (#"{"messages":[{}],"stream_options":[]}"#, "stream_options"), (#"{"messages":[{}],"model":1}"#, "model"), ("nonsense", "not JSON"),
        (#"{"messages":[{}],"stream_options":{"include_usage":"yes"}}"#, "include_usage"),
    ])
    func `invalid completion requests`(body: String, named: String) {
        #expect { try ChatCompletionRequest(parsing: Array(body.utf8), maximumDepth: 32) } throws: { error in
            (error as? HTTPErrorResponse)?.status == .badRequest && (error as? HTTPErrorResponse)?.message.contains(named) ?? false
        }
    }

    @Test func `valid completion requests`() throws {
        let body = #"{"messages":[{"role":"user"}],"n":1,"stream":true,"stream_options":{"include_usage":true},"model":"m","top_k":5}"#
        let request = try ChatCompletionRequest(parsing: Array(body.utf8), maximumDepth: 32)
        #expect(request.options == .init(streams: true, includesUsage: true, model: "m") && request.body["top_k"] == 5)
        let plain = try ChatCompletionRequest(parsing: Array(#"{"messages":[{}],"stream":null}"#.utf8), maximumDepth: 32)
        #expect(plain.options == .init(streams: false, includesUsage: false, model: nil))
    }

    @Test func `numbers in the record are JSON numbers`() throws {
        let record = JobRecord(fields: [
            "state": "finished", "attempt": "2", "submitted_ms": "1763800000000", "owner": "a", "worker": "", "secret": "x",
            "usage": #"{"prompt_tokens":1,"completion_tokens":2,"estimated":false}"#,
        ])
        let expected =
            #"{"id":"p0-01JDTEST","state":"finished","owner":"a","attempt":2,"submitted_ms":1763800000000,"#
            + #""usage":{"prompt_tokens":1,"completion_tokens":2,"estimated":false}}"#
        #expect(record.json(id: job).text == expected)
    }

    @Test(arguments: [("1-0", true), ("2-17", true), ("", true), ("1", false), ("x-y", false), ("1-0\n", false)])
    func `values of Last-Event-ID`(header: String, isFine: Bool) {
        let result = Result { () throws(HTTPErrorResponse) in try JobEventRoute.lastEventID(header) }
        #expect(result.map { $0?.description ?? "" } == (isFine ? .success(header) : .failure(.invalidEventID)))
    }
}

@Suite struct ChatCompletionShapingTests {
    private static func chunks(_ events: [GenerationEvent], includesUsage: Bool = false) -> (
        lines: [String], last: StreamStep
    ) {
        var stream = ChatCompletionStream(id: job, created: 7, model: "asked", includesUsage: includesUsage)
        var out: [UInt8] = []
        var step = StreamStep.goOn
        for event in events where step == .goOn { step = stream.take(event, out: &out) }
        let lines = String(decoding: out, as: UTF8.self).split(separator: "\n\n").map { String($0.dropFirst(6)) }
        return (lines, step)
    }

    private static func choice(_ line: String) -> JSON? { (try? JSON(parsing: line))?["choices"]?[0] }

    @Test(
        arguments: [
            (#""logprobs":true"#, "logprobs"), (#""top_logprobs":2"#, "top_logprobs"), (#""modalities":["text","audio"]"#, "modalities"),
            (#""modalities":"audio""#, "modalities"), (#""audio":{"voice":"x"}"#, "audio"),
            (#""logprobs":false,"top_logprobs":null,"modalities":["text"],"audio":null"#, nil),
        ] as [(String, String?)])
    func `what an answer cannot carry is refused by name`(field: String, name: String?) {
        let result = Result { () throws(HTTPErrorResponse) in
            try ChatCompletionRequest(parsing: Array(#"{"messages":[{}],\#(field)}"#.utf8), maximumDepth: 8)
        }
        switch (result, name) {
        case (.success, nil): break
        case (.failure(let refusal), let name?): #expect(refusal == .notCarried(name))
        default: Issue.record("\(field): \(result)")
        }
    }

    @Test func `text is sent in chunks`() throws {
        let events: [GenerationEvent] = [
            .started(worker: "w", attempt: 1), .upstream(name: "u", model: "real"), .reasoning("hm"), .text("a\n"), .text("b"),
            .audio(Audio(index: 0, format: "pcm", data: "AA==", last: true)), .finished(.length, usage),
        ]
        let (lines, step) = Self.chunks(events)
        #expect(step == .end)
        try #require(lines.count == 5)
        #expect(
            lines[0] == #"{"id":"chatcmpl-p0-01JDTEST","object":"chat.completion.chunk","created":7,"model":"real","choices":[{"index":0,"#
                + #""delta":{"role":"assistant","reasoning_content":"hm"},"logprobs":null,"finish_reason":null}]}"#)
        #expect(Self.choice(lines[1])?["delta"] == ["content": "a\n"])
        #expect(Self.choice(lines[2])?["delta"] == ["content": "b"])
        #expect(Self.choice(lines[3]) == ["index": 0, "delta": [:], "logprobs": .null, "finish_reason": "length"])
        #expect(lines[4] == "[DONE]")
    }

    @Test func `usage is sent last and only on request`() throws {
        let (lines, _) = Self.chunks([.text("a"), .finished(.stop, usage)], includesUsage: true)
        try #require(lines.count == 4)
        #expect(try JSON(parsing: lines[0])["usage"] == .null)
        let last = try JSON(parsing: lines[2])
        #expect(last["choices"] == [])
        #expect(last["usage"] == ["prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7])
        #expect(lines[3] == "[DONE]")
    }

    @Test func `the details of the usage that the upstream reported are passed on`() throws {
        let detailed = Usage(promptTokens: 3, completionTokens: 4, estimated: false, cachedTokens: 2, reasoningTokens: 1)
        let (lines, _) = Self.chunks([.finished(.stop, detailed)], includesUsage: true)
        #expect(
            try JSON(parsing: lines[lines.count - 2])["usage"] == [
                "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "prompt_tokens_details": ["cached_tokens": 2],
                "completion_tokens_details": ["reasoning_tokens": 1],
            ])
    }

    @Test func `tool calls`() throws {
        let (lines, _) = Self.chunks([
            .toolCall(ToolCall(index: 1, callID: "c1", name: "f", arguments: #"{"x":1}"#)), .finished(.toolCalls, usage),
        ])
        let delta = Self.choice(lines[0])?["delta"]
        let call = #"[{"index":1,"id":"c1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]"#
        #expect(delta?["role"] == "assistant" && delta?["tool_calls"]?.text == call)
        #expect(Self.choice(lines[1])?["finish_reason"] == "tool_calls")
    }

    @Test func `an empty answer has a role`() throws {
        let (lines, _) = Self.chunks([.finished(.stop, usage)])
        #expect(Self.choice(lines[0])?["delta"] == ["role": "assistant", "content": ""])
        #expect(Self.choice(lines[1])?["finish_reason"] == "stop")
    }

    @Test func `an interrupt ends the stream normally`() throws {
        let interruption = Interruption(reason: "USER_STOP", phase: .streaming, usage: usage, latencyMicroseconds: 5)
        let (lines, step) = Self.chunks([.text("a"), .interrupted(interruption)])
        #expect(step == .end)
        #expect(Self.choice(lines[1])?["finish_reason"] == "stop")
        let details: JSON = [
            "interrupted": true, "reason": .string(interruption.reason), "phase": .string(interruption.phase.rawValue),
        ]
        #expect(try JSON(parsing: lines[1])["sluice"] == details)
        #expect(try JSON(parsing: lines[0])["sluice"] == nil)
        for word in ["stop", "interrupted"] {
            var whole = ChatCompletion(model: "", interruptedReason: word)
            #expect(try whole.take(.interrupted(interruption)))
            let body = try JSON(parsing: whole.body(id: job, created: 7))
            #expect(body["choices"]?[0]?["finish_reason"] == .string(word) && body["sluice"] == details)
        }
        #expect(lines[2] == "[DONE]")
    }

    @Test func `no DONE follows a failure`() throws {
        let (lines, step) = Self.chunks([.text("a"), .failed(Failure(.upstreamDisconnected, "broke"), usage)])
        #expect(step == .end)
        try #require(lines.count == 2)
        #expect(try JSON(parsing: lines[1])["error"]?["code"] == "upstream_disconnected")
    }

    @Test func `a restart after output ends the stream with an error`() throws {
        let (early, first) = Self.chunks([.started(worker: "w", attempt: 2), .restarted, .text("a")])
        #expect(first == .goOn && early.count == 1)
        let (late, step) = Self.chunks([.text("a"), .started(worker: "w", attempt: 2), .restarted, .text("b")])
        #expect(step == .giveUp)
        #expect(try JSON(parsing: late[1])["error"]?["code"] == "worker_lost")
        let (resumed, other) = Self.chunks([.text("a"), .started(worker: "w", attempt: 2), .resumed(textOffset: 1), .text("b")])
        #expect(other == .goOn && resumed.count == 2)
        // Output that was received live but never logged: the resumed answer does not continue it.
        let (_, ahead) = Self.chunks([.text("ab"), .started(worker: "w", attempt: 2), .resumed(textOffset: 1), .text("c")])
        #expect(ahead == .giveUp)
        var whole = ChatCompletion(model: "")
        for event in [GenerationEvent.text("ab"), .resumed(textOffset: 1), .text("c")] { #expect(try !whole.take(event)) }
        #expect(try whole.take(.finished(.stop, usage)))
        #expect(try JSON(parsing: whole.body(id: job, created: 7))["choices"]?[0]?["message"]?["content"] == "ac")
    }

    @Test func `collected completions`() throws {
        var completion = ChatCompletion(model: "asked")
        let call = ToolCall(index: 0, callID: "c", name: "f", arguments: "{}")
        for event in [GenerationEvent.text("old"), .restarted, .reasoning("hm"), .text("ne"), .text("w"), .toolCall(call)] {
            #expect(try !completion.take(event))
        }
        #expect(try completion.take(.finished(.toolCalls, usage)))
        let body = try JSON(parsing: completion.body(id: job, created: 7))
        #expect(body["object"] == "chat.completion" && body["id"] == "chatcmpl-p0-01JDTEST" && body["model"] == "asked")
        let message = body["choices"]?[0]?["message"]
        #expect(message?["content"] == "new" && message?["reasoning_content"] == "hm" && message?["role"] == "assistant")
        #expect(message?["tool_calls"]?[0]?["function"] == ["name": "f", "arguments": "{}"])
        #expect(body["choices"]?[0]?["finish_reason"] == "tool_calls")
        #expect(body["usage"]?["total_tokens"] == 7)
        var failing = ChatCompletion(model: "")
        #expect(throws: HTTPErrorResponse(Failure(.overloaded, "busy"))) { try failing.take(.failed(Failure(.overloaded, "busy"), usage)) }
    }
}
