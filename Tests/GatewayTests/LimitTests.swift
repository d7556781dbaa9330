import Contract
import JSONCodec
import JobQueue
import NIOCore
import TestSupport
import Testing

@testable import Gateway

private let usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)

/// The limits that protect clients from each other.
@Suite(.redis, .timeLimit(.minutes(10))) struct LimitTests {
    private static let chat: JSON = ["model": "m", "messages": [["role": "user", "content": "x"]]]

    @Test func `running requests of a tenant are limited over sockets and HTTP together`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.requestsPerTenant = 2 }
            let (one, two) = (try await lab.client(gateway), try await lab.client(gateway))
            let first = try await one.request("x", model: "m")
            let job = try await lab.claim()
            try await two.request("x", model: "m")
            let second = try await lab.claim()
            try await one.request("x", model: "m", id: "over")
            let error = try await one.expect("ERROR").payload
            #expect(error["error_code"] == "RATE_LIMITED" && error["request_id"] == "over" && error["retryable"] == true)
            let refused = try await HTTPCall.post(
                gateway.port, "/v1/chat/completions", Self.chat, headers: ["authorization": "Bearer tenant-a-test-key"])
            #expect(refused.status == 429 && refused.json?["error"]?["code"] == "rate_limited" && refused.headers["retry-after"] != nil)
            // Another tenant has its own limit.
            let other = try await lab.client(gateway, key: "tenant-b-test-key")
            let theirs = try await other.request("x", model: "m")
            let third = try await lab.claim()
            try await third.end(.finished(.stop, usage))
            _ = try await other.state.wait({ _ in "its end" }) { $0.requests[theirs.id]?.end }
            // A request that ends, or whose client disconnects, is no longer counted; completions count as well.
            try await job.end(.finished(.stop, usage))
            _ = try await one.state.wait({ _ in "its end" }) { $0.requests[first.id]?.end }
            let leaving = try await RawHTTPConnection(gateway.port)
            try await leaving.request("POST", "/v1/chat/completions", body: Self.chat.text)
            let completion = try await lab.claim()
            #expect(completion.job.owner == "tenant-a")
            try await leaving.close()
            // A request is rejected until the completion is no longer counted.
            let (again, last) = try await until("the disconnected client's request to end") { try await lab.claimedRequest(of: one) }
            try await last.end(.finished(.stop, usage))
            _ = try await one.state.wait({ _ in "its end" }) { $0.requests[again.id]?.end }
            try await second.end(.finished(.stop, usage))
            for client in [one, two, other] { await client.close() }
        }
    }

    @Test func `jobs count as running requests until they end`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway {
                $0.requestsPerTenant = 2
                $0.lease = .milliseconds(600)
            }
            func submit() async throws -> HTTPAnswer {
                try await HTTPCall.post(
                    gateway.port, "/v1/jobs", ["request": Self.chat], headers: ["authorization": "Bearer tenant-a-test-key"])
            }
            let client = try await lab.client(gateway)
            try await client.request("x", model: "m", id: "first")
            let first = try await lab.claim()
            #expect(try await submit().status == 202)
            let job = try await lab.claim()
            let refused = try await submit()
            #expect(refused.status == 429 && refused.json?["error"]?["code"] == "rate_limited" && refused.headers["retry-after"] != nil)
            try await client.request("x", model: "m", id: "over")
            #expect(try await client.expect("ERROR").payload["error_code"] == "RATE_LIMITED")
            // Another tenant has its own limit.
            let theirs = try await HTTPCall.post(
                gateway.port, "/v1/jobs", ["request": Self.chat], headers: ["authorization": "Bearer tenant-b-test-key"])
            #expect(theirs.status == 202)
            try await job.end(.finished(.stop, usage))
            #expect(try await submit().status == 202, "its record shows the end")
            try await lab.claim().end(.finished(.stop, usage))
            try await lab.claim().end(.finished(.stop, usage))
            try await first.end(.finished(.stop, usage))
            // The gateway updates the count of ended jobs periodically.
            let (_, again) = try await until("a free request") { try await lab.claimedRequest(of: client) }
            try await again.end(.finished(.stop, usage))
            await client.close()
        }
    }

    @Test func `a client that does not read is closed with 4430 without delaying others`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.outgoingMaximum = 100_000 }
            let (stalled, active) = (try await lab.client(gateway), try await lab.client(gateway))
            try await stalled.request("x", model: "m")
            let flood = try await lab.claim()
            try await flood.write(.upstream(name: "u", model: "m"), .text("begun"))
            let request = try await active.request("x", model: "m")
            let job = try await lab.claim()
            try await job.write(.upstream(name: "u", model: "m"))
            try await stalled.stopReading()
            let piece = String(repeating: "x", count: 50_000)
            // In total 2 MB, more than the limited socket buffers can hold; buffers of the default size of Linux could.
            for round in 0..<40 {
                try await flood.write(.text(piece))
                try await job.write(.text(" w\(round)"))
                let due = SimulatorText.tokens(round + 1)
                // Each event arrives while the other client does not read.
                _ = try await active.state.wait({ "round \(round), \($0.requests)" }) { state in
                    state.requests[request.id]?.text == due ? () : nil
                }
            }
            try await stalled.goOnReading()
            // The socket was closed during the flood. On a slow machine the close frame may have been dropped by then, which gives 1006.
            #expect([4430, 1006].contains(try await stalled.closed()))
            try await job.end(.finished(.stop, usage))
            let end = try await active.state.wait({ _ in "its end" }) { $0.requests[request.id]?.end }
            #expect(end == .finished && active.problems.isEmpty)
            try await flood.end(.finished(.stop, usage))
            await active.close()
        }
    }

    @Test func `what all sockets of a tenant leave unread is bounded`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway {
                $0.outgoingMaximum = 50_000_000
                $0.unsentBytesPerTenant = 3_000_000
            }
            // Each with a job that generates more than the kernel keeps; none comes near the limit of one socket.
            var slow: [(client: WebSocketClient, job: PlayedJob)] = []
            func add(_ key: String) async throws -> (client: WebSocketClient, job: PlayedJob) {
                let client = try await lab.client(gateway, key: key, receiveBuffer: 16_384)
                try await client.request("x", model: "m")
                let job = try await lab.claim()
                try await job.write(.upstream(name: "u", model: "m"))
                try await client.stopReading()
                return (client, job)
            }
            for _ in 0..<4 { slow.append(try await add("tenant-a-test-key")) }
            let other = try await add("tenant-b-test-key")
            let healthy = try await lab.client(gateway)
            let request = try await healthy.request("x", model: "m")
            let job = try await lab.claim()
            try await job.write(.upstream(name: "u", model: "m"))
            let piece = String(repeating: "x", count: 100_000)
            for round in 0..<80 {
                for (_, job) in slow { try await job.write(.text(piece)) }
                if round < 20 { try await other.job.write(.text(piece)) }
                if round % 10 == 0 { try await job.write(.text(" w\(round / 10)")) }
            }
            try await job.end(.finished(.stop, usage))
            #expect(try await request.ended().text == SimulatorText.tokens(8))
            try await other.job.end(.finished(.stop, usage))
            for (client, _) in slow + [other] { try await client.goOnReading() }
            for (client, _) in slow { #expect([4430, 1006].contains(try await client.closed())) }
            _ = try await other.client.state.wait({ "its end, \($0)" }) { $0.requests.values.first?.end }
            for (_, job) in slow { try await job.end(.finished(.stop, usage)) }
            await healthy.close()
            await other.client.close()
        }
    }

    @Test func `an ended request can be replayed from the beginning or from the last event`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway()
            let client = try await lab.client(gateway)
            let request = try await client.request("x", model: "m")
            let job = try await lab.claim()
            try await job.write(.upstream(name: "u", model: "m"), .text("one"), .text(" two"))
            let half = try await client.state.wait({ _ in "its text" }) { state in
                state.requests[request.id].flatMap { $0.text == "one two" ? $0.lastEvent : nil }
            }
            try await job.write(.text(" three"))
            try await job.end(.finished(.stop, usage))
            _ = try await client.state.wait({ _ in "its end" }) { $0.requests[request.id]?.end }
            let session = client.state.value.session
            await client.close()

            for (after, text): (EventID?, String) in [(nil, "one two three"), (half, " three")] {
                let back = try await lab.client(gateway, [("resume_session_id", .string(session))])
                back.state.update { state in
                    state.requests[request.id] = RequestChecker(id: request.id, model: nil)
                    state.requests[request.id]?.resume()
                }
                var payload: JSONObject = JSONObject()
                payload["request_id"] = .string(request.id)
                payload["last_event_id"] = after.map { .string($0.description) }
                try await back.send("RESUME", .object(payload))
                let end = try await back.state.wait({ "its end, \($0)" }) { $0.requests[request.id]?.end }
                #expect(end == .finished && back.state.value.requests[request.id]?.text == text)
                #expect(back.problems.isEmpty, "\(back.problems)")
                await back.close()
            }
        }
    }

    @Test func `the model list has the default model, and responses have a Date`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway { $0.defaultModel = "house-model" }
            let answer = try await HTTPCall.get(gateway.port, "/v1/models", headers: ["authorization": "Bearer tenant-a-test-key"])
            #expect(answer.json?["data"]?.array?.compactMap { $0["id"]?.string } == ["house-model"])
            #expect(answer.headers["date"]?.hasSuffix(" GMT") == true)
            // The example of RFC 9110, 5.6.7.
            #expect(DateField.text(784_111_777) == "Sun, 06 Nov 1994 08:49:37 GMT")
        }
    }
}
