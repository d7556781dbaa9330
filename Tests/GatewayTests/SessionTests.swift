import Contract
import JSONCodec
import NIOCore
import RedisClient
import TestSupport
import Testing

@testable import Gateway
@testable import JobQueue

private let usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)

/// The state of a session from REGISTER to its end.
@Suite(.redis, .timeLimit(.minutes(10))) struct SessionTests {
    private static let weather: JSON = [
        "name": "weather", "description": "d", "parameters": [["name": "city", "type": "str", "description": "where"]],
    ]

    private static func names(_ job: PlayedJob) -> [String] {
        (job.job.request["tools"]?.array ?? []).compactMap { $0["function"]?["name"]?.string }
    }

    @Test func `prompt, scene, functions and history form the job's request`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.historyTurns = 2 }
            let client = try await lab.client(
                gateway,
                [
                    ("system_prompt", ["role_description": "You are a guide.", "response_requirements": "Be short."]),
                    ("scene_context", ["scene_description": "On a ship."]), ("function_calling", [Self.weather]), ("platform", "TV"),
                ])
            let first = try await client.request("one", model: "m")
            let job = try await lab.claim()
            #expect(
                job.job.request["messages"] == [
                    ["role": "system", "content": "You are a guide.\n\nBe short.\n\nOn a ship."], ["role": "user", "content": "one"],
                ])
            #expect(
                job.job.request["tools"]?[0] == [
                    "type": "function",
                    "function": [
                        "name": "weather", "description": "d",
                        "parameters": ["type": "object", "properties": ["city": ["description": "where", "type": "string"]]],
                    ],
                ])
            // The history contains an interrupted answer up to what the client received.
            try await job.write(.upstream(name: "u", model: "m"), .text("as far as"), .text(" this"))
            _ = try await client.state.wait({ _ in "its text" }) {
                $0.requests[first.id]?.text == "as far as this" ? true : nil
            }
            #expect(try await client.interrupt(.string(first.id))["status"] == "SUCCESS")
            try await job.end(.interrupted(.init(reason: "USER_STOP", phase: .streaming, usage: usage, latencyMicroseconds: 1)))
            #expect(try await first.ended().end == .interrupted)

            // Each function operation and an update of the other settings; an empty text creates no request.
            let operations: [(String, JSON, [String])] = [
                ("ADD", [["name": "clock"]], ["weather", "clock"]),
                ("UPDATE", [["name": "clock", "description": "new"]], ["weather", "clock"]),
                ("DELETE", [["name": "weather"]], ["clock"]), ("REPLACE", [["name": "map"], ["name": "clock"]], ["map", "clock"]),
            ]
            for (operation, list, expected) in operations {
                try await client.request("", model: nil, fields: [("function_calling_op", .string(operation)), ("function_calling", list)])
                try await client.send("SESSION_QUERY", ["query_fields": ["function_calling"]])
                let known = try await client.expect("SESSION_INFO").payload["session_data"]?["function_calling"]?.array ?? []
                #expect(known.compactMap { $0["name"]?.string } == expected, "\(operation)")
            }
            try await client.request(
                "", model: nil,
                fields: [
                    (
                        "update_session",
                        [
                            "systemPrompt": ["role_description": "A pirate."], "sceneContext": ["scene_description": "Ashore."],
                            "requireTTS": true, "enableSRS": true, "reasoning": true,
                        ]
                    )
                ])
            let two = try await client.request("two", model: "m", id: "two")
            let second = try await lab.claim()
            #expect(
                second.job.request["messages"] == [
                    ["role": "system", "content": "A pirate.\n\nAshore."], ["role": "user", "content": "one"],
                    ["role": "assistant", "content": "as far as this"], ["role": "user", "content": "two"],
                ])
            #expect(Self.names(second) == ["map", "clock"] && second.job.speech != nil)
            try await client.send("SESSION_QUERY", ["query_fields": []])
            let info = try await client.expect("SESSION_INFO").payload
            let data = info["session_data"]
            #expect(info["status"] == "SUCCESS" && data?["platform"] == "TV" && data?["require_tts"] == true && data?["enable_srs"] == true)
            #expect(data?["active_request_ids"] == ["two"] && (data?["create_time"]?.integer ?? 0) > 1_600_000_000_000)
            #expect((1...3_600).contains(data?["remaining_seconds"]?.integer ?? 0))
            try await second.write(.upstream(name: "u", model: "m"), .reasoning("hm"), .text("aye"))
            try await second.end(.finished(.stop, usage))
            #expect(try await two.ended().text == "aye")

            // The history holds two turns.
            for text in ["three", "four"] {
                let request = try await client.request(text, model: "m")
                let next = try await lab.claim()
                let messages = next.job.request["messages"]?.array ?? []
                let users = messages.filter { $0["role"] == "user" }.compactMap { $0["content"]?.string }
                #expect(users == (text == "three" ? ["one", "two", "three"] : ["two", "three", "four"]))
                try await next.end(.finished(.stop, usage))
                try await request.ended()
            }
            #expect(client.problems.isEmpty, "\(client.problems)")
            await client.close()
        }
    }

    @Test func `SHUTDOWN interrupts the client's requests and ends the session`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.historyTurns = 0 }
            let client = try await lab.client(gateway)
            let first = try await client.request("one", model: "m")
            let job = try await lab.claim()
            try await job.end(.finished(.stop, usage))
            try await first.ended()
            try await client.request("two", model: "m")
            let second = try await lab.claim()
            #expect(second.job.request["messages"]?.array?.count == 1, "nothing is remembered with SLUICE_HISTORY_TURNS=0")
            try await client.send("SHUTDOWN", ["reason": "done"])
            #expect(try await client.expect("SHUTDOWN").payload["reason"]?.string != nil)
            #expect(try await client.closed() == 1000)
            let interruptKey = try await until("the interrupt key") {
                try await lab.queue.redis.send("GET", .string(lab.queue.keys.interrupt(second.job.id))).string
            }
            #expect(Interrupt(parsing: interruptKey.utf8)?.reason == InterruptReason.clientGone)
            // The session has ended too.
            let late = try await WebSocketClient.connect(port: gateway.port)
            try await late.send(
                "REGISTER",
                ["auth": ["type": "API_KEY", "api_key": "tenant-a-test-key"], "resume_session_id": .string(client.state.value.session)])
            #expect(try await late.expect("ERROR").payload["error_code"] == "SESSION_INVALID")
            await late.close()
        }
    }

    /// The network was cut: the client reconnects before the gateway detects the loss of the old connection.
    /// Its job would otherwise run without a session that another gateway can resume.
    @Test func `a session that Redis has lost is written again before its next job`() async throws {
        try await withWebSocketLab { lab in
            let client = try await lab.client(try await lab.gateway())
            let session = client.state.value.session
            _ = try await lab.queue.redis.send("DEL", .string(lab.queue.keys.session(session)))
            let request = try await client.request("x", model: "m")
            let job = try await lab.claim()
            let field = RedisArgument.string(SessionRecord.field(of: request.id))
            #expect(try await lab.queue.redis.send("HEXISTS", .string(lab.queue.keys.session(session)), field) == .integer(1))
            try await job.write(.upstream(name: "u", model: "m"), .text("one"))
            let back = try await lab.client(try await lab.gateway("g2"), [("resume_session_id", .string(session))])
            let resumed = try await back.resume(request)
            try await job.end(.finished(.stop, usage))
            #expect(try await resumed.ended().text == "one")
            #expect(back.problems.isEmpty, "\(back.problems)")
            await back.close()
        }
    }

    /// Both takeovers have the same epoch, so that the session in the memory of the first gateway looks current.
    @Test func `a gateway whose takeover Redis has lost does not continue from its memory`() async throws {
        try await withWebSocketLab { lab in
            let first = try await lab.client(try await lab.gateway())
            let session = first.state.value.session
            let resume: (String, JSON) = ("resume_session_id", .string(session))
            let key = RedisArgument.string(lab.queue.keys.session(session))
            let before = try #require(try await lab.queue.redis.send("DUMP", key).bytes?.array)
            let second = try await lab.gateway("g2")
            let client = try await lab.client(second, [resume])
            _ = try await client.request("x", model: "m")
            let job = try await lab.claim()
            // A fail-over to a replica that lacks the takeover; the client goes to a third gateway.
            _ = try await lab.queue.redis.send("RESTORE", key, "0", .bytes(before), "REPLACE")
            let third = try await lab.client(try await lab.gateway("g3"), [resume])
            let request = try await third.request("y", model: "m")
            let next = try await lab.claim()
            try await next.write(.upstream(name: "u", model: "m"), .text("one"))
            let back = try await lab.client(second, [resume])
            let resumed = try await back.resume(request)
            try await next.end(.finished(.stop, usage))
            let end = try await resumed.ended()
            #expect(end.end == .finished && end.text == "one", "\(end.last?.text ?? "")")
            try await job.end(.finished(.stop, usage))
            #expect(back.problems.isEmpty, "\(back.problems)")
            for socket in [first, client, third, back] { await socket.close() }
        }
    }

    @Test(arguments: [true, false])
    func `a reconnecting client replaces its half-open socket immediately`(sameGateway: Bool) async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            let other = sameGateway ? gateway : try await lab.gateway("g2")
            let proxy = try await FaultProxy.start(to: gateway.port)
            let old = try await WebSocketClient.connect(port: proxy.port)
            let session = try await old.register(key: "tenant-a-test-key")
            let request = try await old.request("x", model: "m")
            let job = try await lab.claim()
            try await job.write(.upstream(name: "u", model: "m"), .text("one"))
            _ = try await old.state.wait({ _ in "its text" }) {
                $0.requests[request.id]?.text == "one" ? true : nil
            }
            proxy.set { $0.silent = true }
            try await job.write(.text(" two"))
            let back = try await lab.client(other, [("resume_session_id", .string(session))])
            let resumed = try await back.resume(request)
            try await job.write(.text(" three"))
            _ = try await back.state.wait({ "its text, \($0)" }) {
                $0.requests[request.id]?.text == "one two three" ? true : nil
            }
            try await job.end(.finished(.stop, usage))
            #expect(try await resumed.ended().end == .finished)
            proxy.heal()
            #expect(try await old.closed() == 1001)
            let received = old.state.value.requests[request.id]
            // On another gateway, the old one releases the session at its next write, when the request ends. Until then the old socket
            // receives the same events once.
            let text = received?.text ?? ""
            #expect(sameGateway ? text == "one" || text == "one two" : "one two three".hasPrefix(text), "\(text)")
            #expect(!sameGateway || received?.end == nil)
            #expect(old.problems.isEmpty && back.problems.isEmpty, "\(old.problems) \(back.problems)")
            await back.close()
            await proxy.close()
        }
    }
}
