import Contract
import JSONCodec
import Simulator
import Testing

/// Clients that disconnect, read slowly or send invalid requests.
@Suite(.timeLimit(.minutes(10))) struct ClientTests {
    @Test func `an answer ends when its client disconnects`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(RequestText.chat("sim-n100000-g1", headers: ["x-request-id: job-7"]))
            try await client.waitFor(" w9")
            try await client.close()
            let record = try await RecordedRequests.ended(port, tag: "job-7")
            #expect(record["how"] == "client_closed")
            let tokens = record["tokens"]?.integer ?? 0
            #expect(tokens >= 10 && tokens < 100_000)
            // Later requests see the same record.
            for _ in 0..<10 { #expect(try await RecordedRequests.ended(port, tag: "job-7") == record) }
        }
    }

    @Test func `a model with -z continues after its client disconnects`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(RequestText.chat("sim-n3-g4000-z", tag: "zombie"))
            try await client.waitFor(" w0")
            try await client.close()
            let left = try await RecordedRequests.request(port, tag: "zombie") {
                $0["client_left_ns"]?.integer != nil || $0["how"] != .null
            }
            #expect(left["how"] == .null)
            let record = try await RecordedRequests.ended(port, tag: "zombie")
            #expect(record["how"] == "done")
            #expect(record["tokens"] == 3)
            #expect((record["end_ns"]?.integer ?? 0) > (record["client_left_ns"]?.integer ?? 0))
        }
    }

    @Test func `a slow reader delays its answer`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port, reads: false, receiveBuffer: 4096)
            try await client.send(RequestText.chat("sim-n100000-g0", tag: "slow", headers: ["Connection: close"]))
            // The count rises until the socket buffers are full.
            var last = -1
            while true {
                let tokens = try await RecordedRequests.request(port, tag: "slow") { $0["tokens"] != 0 }["tokens"]?.integer ?? 0
                if tokens == last { break }
                last = tokens
                try await Task.sleep(for: .milliseconds(30))
            }
            #expect(last < 60_000)
            try await client.startReading()
            #expect(await client.rest().hasSuffix("data: [DONE]\n\n\r\n0\r\n\r\n"))
            let record = try await RecordedRequests.ended(port, tag: "slow")
            #expect(record["how"] == "done")
            #expect(record["tokens"] == 100_000)
        }
    }

    @Test func `parallel streams are independent`() async throws {
        try await withSimulator { port in
            try await withThrowingTaskGroup(of: Bool.self) { group in
                for index in 0..<200 {
                    group.addTask {
                        let client = try await RawClient(port: port)
                        try await client.send(RequestText.chat("sim-n\(20 + index % 10)-g2"))
                        return try content(of: try await client.response()) == words(0..<20 + index % 10)
                    }
                }
                for try await isExact in group { #expect(isExact) }
            }
            let ended = try await RecordedRequests.requests(port)
            #expect(ended.count == 200)
            #expect(ended.allSatisfy { $0["how"] == "done" })
        }
    }

    @Test func `a fast stream is complete and does not block others`() async throws {
        try await withSimulator { port in
            async let fast = {
                let client = try await RawClient(port: port)
                try await client.send(RequestText.chat("sim-n5000-g0"))
                return try content(of: try await client.response())
            }()
            let client = try await RawClient(port: port)
            try await client.send(RequestText.chat("sim-n20-g1"))
            #expect(try content(of: try await client.response()) == words(0..<20))
            #expect(try await fast == words(0..<5000))
        }
    }

    @Test(arguments: [
        ("not json", 400), ("[1]", 400), (#"{"messages":[]}"#, 400), (#"{"model":"sim-n1"}"#, 400),
        (#"{"model":"sim-n1","messages":[]}"#, 400),
    ]) func `an invalid body is rejected`(body: String, status: Int) async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(RequestText.http("POST", "/v1/chat/completions", body: body))
            let response = try await client.response()
            #expect(response.status == status)
            #expect(try response.json()["error"]?["message"]?.string != nil)
            #expect(try await RecordedRequests.requests(port).isEmpty)
        }
    }

    @Test func `paths, methods and lists`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(RequestText.http("GET", "/v1/models"))
            #expect(try await client.response().json()["data"]?[0]?["object"] == "model")
            try await client.send(RequestText.http("GET", "/nowhere"))
            #expect(try await client.response().status == 404)
            try await client.send(RequestText.http("GET", "/v1/chat/completions"))
            let refused = try await client.response()
            #expect(refused.status == 405)
            #expect(refused.header("allow") == "POST")
            for tag in ["a", "b%20c", "a"] {
                try await client.send(RequestText.chat("sim-n1-g0", tag: tag))
                _ = try await client.response()
            }
            #expect(try await RecordedRequests.requests(port).count == 3)
            #expect(try await RecordedRequests.requests(port, "?tag=a").count == 2)
            #expect(try await RecordedRequests.requests(port, "?tag=b%2520c").count == 1)
            let last = try await RecordedRequests.requests(port)[2]["accept_ns"]?.integer ?? 0
            #expect(try await RecordedRequests.requests(port, "?since=\(last)").count == 1)
            try await client.send(RequestText.http("DELETE", "/sim/requests"))
            #expect(try await client.response().status == 200)
            #expect(try await RecordedRequests.requests(port).isEmpty)
        }
    }

    @Test func `the list of requests is limited`() async throws {
        var settings = SimulatorSettings()
        settings.requestsKept = 2
        try await withSimulator(settings) { port in
            let client = try await RawClient(port: port)
            for tag in ["a", "b", "c"] {
                try await client.send(RequestText.chat("sim-n1-g0", tag: tag))
                _ = try await client.response()
            }
            #expect(try await RecordedRequests.requests(port).map { $0["tag"]?.string } == ["b", "c"])
        }
    }

    @Test func `messages above the limits are rejected`() async throws {
        var settings = SimulatorSettings()
        settings.maximumBody = 1000
        try await withSimulator(settings) { port in
            let declared = try await RawClient(port: port)
            try await declared.send("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n")
            #expect(try await declared.response().status == 413)
            try await declared.send(String(repeating: "x", count: 1001))
            #expect(await declared.rest() == "")

            let chunked = try await RawClient(port: port)
            let chunk = "1f4\r\n" + String(repeating: "x", count: 500) + "\r\n"
            try await chunked.send("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + chunk)
            try await chunked.send(chunk)
            #expect(try await chunked.response().status == 413)

            let head = try await RawClient(port: port)
            try await head.send("GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + String(repeating: "x", count: 40_000) + "\r\n\r\n")
            #expect(try await head.response().status == 431)
            #expect(await head.rest() == "")
        }
    }

    @Test func `an invalid request is answered and the connection closed`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send("BLAH\r\n\r\n")
            #expect(try await client.response().status == 400)
            #expect(await client.rest() == "")
        }
    }

    @Test func `an HTTP/1.0 client receives a stream without chunks`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            try await client.send(RequestText.chat("sim-n2-g1").replacing("HTTP/1.1", with: "HTTP/1.0"))
            let text = await client.rest()
            #expect(text.hasSuffix("data: [DONE]\n\n"))
            #expect(!text.contains("chunked\r\n"))
        }
    }

    @Test func `Expect: 100-continue`() async throws {
        try await withSimulator { port in
            let client = try await RawClient(port: port)
            let request = RequestText.chat("sim-n1-g0", headers: ["Expect: 100-continue"])
            let cut = request.firstRange(of: "\r\n\r\n")?.upperBound ?? request.endIndex
            try await client.send(String(request[..<cut]))
            try await client.waitFor("HTTP/1.1 100 Continue\r\n\r\n")
            try await client.send(String(request[cut...]))
            try await client.waitFor("[DONE]")
        }
    }
}
