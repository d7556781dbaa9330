import Contract
import JSONCodec
import NIOCore
import OperatorTools
import RedisClient
import Support
import Upstream

/// Attacks by HTTP requests.
extension AbuseAttack {
    static let unreadReplays = AbuseAttack(
        name: "unread-replays", summary: "200 event streams of a 12 MB log that are never read"
    ) { target in
        let job = try await endedJob(in: target, events: 12_000, bytes: 1_000)
        let request = ByteBuffer(
            string: AbuseMessage.head("GET", "/v1/jobs/\(job)/events", host: target.gateway, key: AbuseTarget.key))
        return {
            try await target.inParallel(target.size(200, quick: 60)) { _ in
                guard let connection = await target.connect(reads: false) else { return }
                await connection.send(request)
                target.count()
            }
        }
    }

    /// Writes a finished job of the attacker's with record and event log, as a worker would.
    private static func endedJob(in target: AbuseTarget, events: Int, bytes: Int) async throws -> JobID {
        let redis = target.redis
        guard let job = redis.newJobs(1).first else { throw CommandFailure(.failed, "sluice: no job id could be generated") }
        let log = redis.keys.log(job)
        let now = UInt64(clamping: WallClock.milliseconds)
        let usage = #"{"prompt_tokens":1,"completion_tokens":1,"estimated":false}"#
        var entries = [
            #"{"id":"1-0","type":"started","worker":"bench","attempt":1}"#,
            #"{"id":"1-1","type":"upstream","name":"bench","model":"bench"}"#,
        ]
        let text = String(repeating: "y", count: bytes)
        for number in 0..<events { entries.append(#"{"id":"1-\#(number + 2)","type":"text","text":"\#(text)"}"#) }
        entries.append(#"{"id":"1-\#(events + 2)","type":"finished","reason":"stop","usage":\#(usage)}"#)
        for start in stride(from: 0, to: entries.count, by: 500) {
            var pipeline = RedisPipeline()
            for number in start..<min(start + 500, entries.count) {
                pipeline.append("XADD", .string(log), .string("1-\(number)"), "e", .string(entries[number]))
            }
            for reply in try await redis.client.send(pipeline) { _ = try reply.orThrow() }
        }
        var pipeline = RedisPipeline()
        pipeline.append(
            "HSET", .string(redis.keys.record(job)), "state", "finished", "attempt", "1", "owner", .string(AbuseTarget.tenant), "class",
            "standard", "model", "bench", "submitted_ms", .string("\(now)"), "finished_ms", .string("\(now)"), "reason", "stop", "usage",
            .string(usage))
        for reply in try await redis.client.send(pipeline) { _ = try reply.orThrow() }
        return job
    }

    static let largeBodies = AbuseAttack(
        name: "large-bodies", summary: "300 chat completions of the largest legal size, sent slowly and never finished",
        timeFactor: 2
    ) { target in
        let size = try await largestBody(target)
        let head = bodyHead(target, size)
        let piece = ByteBuffer(repeating: UInt8(ascii: " "), count: 65_536)
        return {
            try await target.inParallel(300) { _ in
                guard let connection = await target.connect(), await connection.send(head) else { return }
                target.count()
                // The last chunk is never sent.
                for _ in 0..<(size / piece.readableBytes - 1) {
                    guard !Task.isCancelled, await connection.send(piece) else { return target.count(accepted: false) }
                }
            }
        }
    }

    private static func bodyHead(_ target: AbuseTarget, _ size: Int) -> ByteBuffer {
        let headers = ["Content-Type: application/json", "Content-Length: \(size)"]
        return ByteBuffer(
            string: AbuseMessage.head("POST", "/v1/chat/completions", host: target.gateway, key: AbuseTarget.key, headers: headers))
    }

    /// The largest request body that the gateway does not reject at once, bytes.
    private static func largestBody(_ target: AbuseTarget) async throws -> Int {
        for size in [8 << 20, 4 << 20, 2 << 20] {
            guard let connection = await target.connect() else { break }
            defer { connection.close() }
            // For a permitted size the gateway waits for the body. A larger one is rejected after the head or the first excess bytes.
            var bytes = bodyHead(target, size)
            bytes.writeRepeatingByte(UInt8(ascii: " "), count: size / 2 + 65_536)
            guard await connection.exchange(bytes, for: ["HTTP/1.1 "], within: .milliseconds(500)) == nil, connection.isOpen else {
                continue
            }
            return size
        }
        return 1 << 20
    }

    static let doubledNames = AbuseAttack(
        name: "doubled-names", summary: #""messages" 3,000 times; as many unknown members as are legal"#, aimsAtWorker: true, timeFactor: 2,
        // For this upstream the worker converts the request body.
        upstream: .dashscope
    ) { target in
        let messages = #""messages":[{"role":"user","content":"\#(String(repeating: "z", count: 70))"}]"#
        let doubled = #"{"model":"sim-n1-g0",\#([String](repeating: messages, count: 3_000).joined(separator: ","))}"#
        let unknown = (0..<JSON.maximumValues - 10).map { #""u\#($0)":1"# }.joined(separator: ",")
        let members = #"{"model":"sim-n1-g0","messages":[{"role":"user","content":"z"}],\#(unknown)}"#
        let bodies = [doubled, members].map {
            AbuseMessage.post("/v1/chat/completions", $0, host: target.gateway, key: AbuseTarget.key)
        }
        return {
            try await target.inParallel(target.size(8, quick: 2)) { number in
                guard let connection = await target.connect() else { return }
                let answer = await connection.exchange(bodies[number % 2], for: ["HTTP/1.1 200", "HTTP/1.1 "])
                target.count(accepted: answer == 0)
            }
        }
    }
}
