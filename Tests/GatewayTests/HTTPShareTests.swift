import Contract
import Foundation
import JSONCodec
import RedisClient
import TestSupport
import Testing

@testable import Gateway
@testable import JobQueue

/// The quotas of a tenant's HTTP requests on one gateway.
@Suite(.redis, .timeLimit(.minutes(10))) struct HTTPShareTests {
    private static func settings(_ fill: (inout GatewaySettings) -> Void) -> GatewaySettings {
        var settings = GatewaySettings()
        fill(&settings)
        return settings
    }

    @Test func `each quota is limited per tenant and released`() throws {
        let shares = HTTPShares(
            settings: Self.settings {
                $0.httpRequestsPerTenant = 2
                $0.streamsPerTenant = 1
                $0.bodyBytesPerTenant = 10
            })
        let one = try shares.request(of: "a")
        var two: HTTPShare? = try shares.request(of: "a")
        #expect(throws: HTTPErrorResponse.tooManyUnderWay) { try shares.request(of: "a") }
        let other = try shares.request(of: "b")
        try one.hold(6)
        #expect(throws: HTTPErrorResponse.tooManyBytes) { try two?.hold(5) }
        #expect(throws: HTTPErrorResponse.tooManyBytes) { try two?.hold(Int.max) }
        try other.hold(10)
        two = nil
        one.release()
        one.release()
        #expect(shares.held(by: "a") == HTTPShares.Held())
        let stream = try shares.stream(of: "a")
        #expect(throws: HTTPErrorResponse.tooManyStreams) { try shares.stream(of: "a") }
        stream.release()
        other.release()
        #expect(shares.held(by: "b") == HTTPShares.Held())
    }

    /// An ended job whose log holds `count` texts of `size` bytes.
    private func endedJob(_ lab: HTTPLab, texts count: Int, of size: Int) async throws -> String {
        let accepted = try await lab.post("/v1/jobs", #"{"request":{"messages":[{"role":"user","content":"x"}]}}"#)
        let id = try #require(accepted.json?["id"]?.string)
        let job = try await lab.claim()
        let text = GenerationEvent.text(String(repeating: "x", count: size))
        for _ in 0..<count { try await job.write(text) }
        try await job.end(.finished(.stop, Usage(promptTokens: 1, completionTokens: 1, estimated: false)))
        return id
    }

    private func redisOutput(_ lab: HTTPLab) async throws -> Int {
        let text = try await lab.queue.redis.send("INFO", "stats").string ?? ""
        let line = text.split(whereSeparator: \.isNewline).first { $0.hasPrefix("total_net_output_bytes:") }
        return try #require(line.flatMap { Int($0.dropFirst("total_net_output_bytes:".count)) })
    }

    @Test func `pages for event streams are read in the tenant's turn`() async throws {
        try await withHTTPLab { lab in
            let id = try await endedJob(lab, texts: 1, of: 100)
            let turns = lab.queue.pageTurns
            await turns.begin(1 << 20, of: "tenant-a")
            async let stream = lab.get("/v1/jobs/\(id)/events")
            try await until("the stream to wait for its turn") { turns.load(of: "tenant-a").waiting == 1 }
            turns.end(1 << 20, of: "tenant-a")
            #expect(try await stream.body.contains("event: finished"))
            #expect(turns.load(of: "tenant-a") == (0, 0))
        }
    }

    @Test func `the log is read at the client's speed and delivered completely`() async throws {
        try await withHTTPLab { lab in
            let id = try await endedJob(lab, texts: 120, of: 100_000)
            let before = try await redisOutput(lab)
            var stalled: [RawHTTPConnection] = []
            for _ in 0..<4 {
                let connection = try await RawHTTPConnection(lab.port, autoRead: false)
                try await connection.request("GET", "/v1/jobs/\(id)/events")
                stalled.append(connection)
            }
            // Wait until the gateway has stopped reading: two successive values are equal.
            var last = -1
            try await until("the gateway to wait for its readers", deadline: .seconds(150), every: .milliseconds(300)) {
                let now = try await redisOutput(lab) - before
                defer { last = now }
                return now > 4 * 100_000 && now - last < 20_000
            }
            // Besides a page, the socket buffers of both ends hold a part of each stream.
            #expect(last < 4 * 8_000_000, "\(last) bytes of a 12 MB log were read for four clients that do not read")
            for connection in stalled { try await connection.close() }
            let whole = try await lab.get("/v1/jobs/\(id)/events")
            let ids = whole.body.split(separator: "\n").filter { $0.hasPrefix("id: ") }
            #expect(ids.count == 122 && ids.first == "id: 1-0" && ids.last == "id: 1-121")
            let rest = try await lab.get("/v1/jobs/\(id)/events", headers: ["last-event-id": "1-119"])
            #expect(rest.body.split(separator: "\n").filter { $0.hasPrefix("id: ") } == ["id: 1-120", "id: 1-121"])
        }
    }

    @Test func `a stream above the limit gives 429, another tenant's does not`() async throws {
        try await withHTTPLab(settings: { $0.streamsPerTenant = 2 }) { lab in
            let submitted = try await lab.post("/v1/jobs", #"{"request":{"messages":[{"role":"user","content":"x"}]}}"#)
            let id = try #require(submitted.json?["id"]?.string)
            var open: [RawHTTPConnection] = []
            for _ in 0..<2 {
                let connection = try await RawHTTPConnection(lab.port)
                try await connection.request("GET", "/v1/jobs/\(id)/events")
                try await connection.wait(for: "text/event-stream")
                open.append(connection)
            }
            let third = try await lab.get("/v1/jobs/\(id)/events")
            #expect(third.status == 429 && third.headers["retry-after"] != nil)
            #expect(third.json?["error"]?["code"] == "too_many_streams")
            let other = try await lab.post("/v1/jobs", #"{"request":{}}"#, key: "tenant-b-test-key")
            let foreign = try #require(other.json?["id"]?.string)
            let theirs = try await RawHTTPConnection(lab.port)
            try await theirs.request("GET", "/v1/jobs/\(foreign)/events", key: "tenant-b-test-key")
            try await theirs.wait(for: "text/event-stream")
            for connection in open + [theirs] { try await connection.close() }
            try await until("the share to be given back") {
                let connection = try await RawHTTPConnection(lab.port)
                try await connection.request("GET", "/v1/jobs/\(id)/events")
                try await connection.wait(for: "\r\n\r\n")
                try await connection.close()
                return connection.received.value.hasPrefix("HTTP/1.1 200")
            }
        }
    }

    @Test func `bodies above their total limit give 429`() async throws {
        try await withHTTPLab(settings: {
            $0.bodyBytesPerTenant = 100_000
            $0.bodyTimeout = .testDeadline
        }) { lab in
            let slow = try await RawHTTPConnection(lab.port)
            try await slow.send(
                "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer tenant-a-test-key\r\nContent-Length: 90000\r\n\r\n"
                    + String(repeating: " ", count: 89_000))
            try await until("the slow body to be counted") { lab.shares.held(by: "tenant-a").bodyBytes == 89_000 }
            let refused = try await lab.post("/v1/jobs", String(repeating: " ", count: 50_000))
            #expect(refused.status == 429 && refused.headers["retry-after"] != nil)
            #expect(try await lab.post("/v1/jobs", String(repeating: " ", count: 50_000), key: "tenant-b-test-key").status == 400)
            try await slow.close()
            try await until("the bytes to be given back") {
                try await lab.post("/v1/jobs", String(repeating: " ", count: 50_000)).status == 400
            }
        }
    }
}
