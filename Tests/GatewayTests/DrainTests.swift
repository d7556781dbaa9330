import Contract
import JSONCodec
import RedisClient
import TestSupport
import Testing

@testable import Gateway
@testable import JobQueue

private let usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)

/// The drain after SIGTERM as clients and load balancers observe it.
@Suite(.redis, .timeLimit(.minutes(10))) struct DrainTests {
    private static let upgrade =
        "GET /ws/agent/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

    @Test func `idle clients are closed gradually, and clients with a running request at the timeout`() async throws {
        try await withWebSocketLab { lab in
            // Idle sockets are closed within a fifth of the drain timeout.
            let gateway = try await lab.gateway {
                $0.drainTimeout = .seconds(25)
            }
            var idle: [WebSocketClient] = []
            for _ in 0..<50 { idle.append(try await lab.client(gateway)) }
            let busy = try await lab.client(gateway)
            let request = try await busy.request("x", model: "m")
            let job = try await lab.claim()
            try await job.write(.upstream(name: "u", model: "m"), .text("begun"))
            let start = monotonicNanoseconds()
            await gateway.drain()
            try await until("readiness to be red") { try await HTTPCall.get(gateway.port, "/readyz").status == 503 }
            let refused = try await RawHTTPConnection(gateway.port)
            try await refused.send(Self.upgrade)
            let answer = try await refused.end().lowercased()
            #expect(answer.hasPrefix("http/1.1 503 ") && answer.contains("retry-after: ") && answer.contains("date: "), "\(answer)")
            #expect(answer.contains(#""code":"draining""#))
            var times: [Int] = []
            for client in idle {
                times.append(try await client.expect("SHUTDOWN").time)
                #expect(try await client.closed() == 1001)
            }
            times.sort()
            let span = Duration.nanoseconds(times[49] - times[0])
            // The closes are spread over 5 s. A stalled machine closes several sockets at once, but not nearly all.
            #expect(span > .milliseconds(100), "all were closed within \(span)")
            #expect(Set(times.map { $0 / 10_000_000 }).count > 2, "\(times.map { ($0 - start) / 1_000_000 })")
            #expect(busy.isOpen)
            try await busy.expect("SHUTDOWN")
            #expect(try await busy.closed() == 1001)
            #expect(monotonicNanoseconds() - start > 20_000_000_000, "a client with a running request has the whole drain timeout")
            try await gateway.task.value
            // The job was not interrupted, because its client may resume on another gateway.
            let interruptKey = try await lab.queue.redis.send("GET", .string(lab.queue.keys.interrupt(job.job.id))).string
            #expect(interruptKey == nil)
            let back = try await lab.client(try await lab.gateway("g2"), [("resume_session_id", .string(busy.state.value.session))])
            let resumed = try await back.resume(request)
            try await job.write(.text(" and ended"))
            try await job.end(.finished(.stop, usage))
            #expect(try await resumed.ended().text == "begun and ended" && back.problems.isEmpty)
            await back.close()
        }
    }

    @Test func `a gateway without clients reports draining for the notice period and then exits`() async throws {
        try await withWebSocketLab { lab in
            let gateway = try await lab.gateway {
                $0.drainNotice = .seconds(50)
                $0.drainTimeout = .seconds(50)
            }
            await gateway.drain()
            try await until("readiness to be red") {
                let answer = try await HTTPCall.get(gateway.port, "/readyz")
                return answer.status == 503 && answer.json?["reason"] == "draining" && answer.headers["connection"] == "close"
            }
            let job = try await HTTPCall.post(
                gateway.port, "/v1/jobs", ["request": .object(JSONObject())], headers: ["authorization": "Bearer tenant-a-test-key"])
            #expect(job.status == 503 && job.json?["error"]?["code"] == "draining" && job.headers["retry-after"] != nil)
            #expect(try await HTTPCall.get(gateway.port, "/healthz").status == 200)
            // The gateway exits after the notice period, but no later than the drain timeout.
            for (notice, timeout) in [(Duration.milliseconds(400), Duration.seconds(30)), (.seconds(600), .milliseconds(400))] {
                let brief = try await lab.gateway("brief") {
                    $0.drainNotice = notice
                    $0.drainTimeout = timeout
                }
                let start = ContinuousClock.now
                await brief.drain()
                try await brief.task.value
                #expect(ContinuousClock.now - start >= .milliseconds(400))
            }
        }
    }
}
