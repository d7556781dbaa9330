import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension Journeys {
    /// Upstream keys do not leave the workers, even if upstreams repeat them.
    @Suite struct KeyCanaryTests {
        private static func http(_ status: String, type: String, _ body: String, headers: String = "") -> String {
            "HTTP/1.1 \(status)\r\nconnection: close\r\ncontent-type: \(type)\r\n\(headers)content-length: \(body.utf8.count)\r\n\r\n\(body)"
        }

        private static func stream(_ body: String) -> String { http("200 OK", type: "text/event-stream", body) }

        private static let token = #"data: {"choices":[{"delta":{"content":"Hello. "},"finish_reason":null}]}"# + "\n\n"

        /// Upstreams that repeat the key in every text of an error.
        private static func answers(_ key: String) -> [CannedUpstream.Answer] {
            let words = #"{"message":"bad key \#(key)","type":"\#(key)","code":"\#(key)"}"#
            let finish = #"data: {"choices":[{"delta":{},"finish_reason":"stop"}]}"# + "\n\ndata: [DONE]\n\n"
            // Truncation to the maximum length of a message would leave a part of the key.
            let long = String(repeating: "x", count: 600 - 40 - key.utf8.count / 2)
            let echo = "x-request-id: \(key)\r\n"
            return [
                .init(word: "\"m-good\"", bytes: stream(token + finish)),
                .init(word: "\"m-401\"", bytes: http("401 No", type: "application/json", "{\"error\":\(words)}", headers: echo)),
                .init(word: "\"m-500\"", bytes: http("500 Oops", type: "text/plain", long + key + long, headers: echo)),
                .init(word: "\"m-frame\"", bytes: stream(token + "data: {\"error\":\(words)}\n\n")),
                .init(
                    word: "\"m-dashscope\"",
                    bytes: stream("event:error\n:HTTP_STATUS/400\ndata:{\"code\":\"\(key)\",\"message\":\"\(long)\(key)\"}\n\n")),
                .init(word: "\"m-anthropic\"", bytes: stream("event: error\ndata: {\"type\":\"error\",\"error\":\(words)}\n\n")),
                .init(word: "\"m-ollama\"", bytes: http("200 OK", type: "application/x-ndjson", "{\"error\":\"no \(key)\"}\n")),
                .init(word: "/audio/speech", bytes: http("401 No", type: "application/json", "{\"error\":\(words)}", headers: echo)),
            ]
        }

        private static func upstreams(_ url: String) -> String {
            """
            upstreams:
              - {name: openai, url: \(url)/v1, key_env: CANARY, models: [m-good, m-401, m-500, m-frame]}
              - {name: dashscope, kind: dashscope, url: \(url)/api/v1, key_file: key, models: [m-dashscope]}
              - {name: anthropic, kind: anthropic, url: \(url), key_file: key, models: [m-anthropic]}
              - {name: ollama, kind: ollama, url: \(url), key_env: CANARY, models: [m-ollama]}
            """
        }

        /// All values in Redis.
        private static func dump(_ redis: RawRedis) async throws -> String {
            var text = ""
            var cursor = "0"
            repeat {
                let page = try #require(try await redis.send("SCAN", cursor, "COUNT", "1000").array)
                cursor = page[0].string ?? "0"
                for key in (page[1].array ?? []).compactMap(\.string) {
                    let type = try await redis.send("TYPE", key).string ?? ""
                    // The key expired meanwhile.
                    guard type != "none" else { continue }
                    let value =
                        switch type {
                        case "string": try await redis.send("GET", key)
                        case "hash": try await redis.send("HGETALL", key)
                        case "stream": try await redis.send("XRANGE", key, "-", "+")
                        case "list": try await redis.send("LRANGE", key, "0", "-1")
                        case "set": try await redis.send("SMEMBERS", key)
                        case "zset": try await redis.send("ZRANGE", key, "0", "-1")
                        default: throw Unexpected(description: "\(key) is a \(type)")
                        }
                    text += "\(key) \(value)\n"
                }
            } while cursor != "0"
            return text
        }

        @Test(arguments: ["text", "json"]) func `no key appears in Redis, logs, metrics or errors`(format: String) async throws {
            try await withLab(simulator: false) { lab in
                let key = lab.upstreamKey
                let upstream = try await CannedUpstream.start(Self.answers(key))
                let (file, base) = (lab.folder.file("upstreams.yaml"), "http://127.0.0.1:\(upstream.port)")
                try Self.upstreams(base).write(toFile: file, atomically: true, encoding: .utf8)
                try "\(key)\n".write(toFile: lab.folder.file("key"), atomically: true, encoding: .utf8)
                let logs: [String: String?] = ["SLUICE_LOG_LEVEL": "trace", "SLUICE_LOG_FORMAT": format]
                let worker = try await lab.worker(
                    "w1",
                    logs.merging([
                        "SLUICE_UPSTREAMS_FILE": file, "CANARY": key, "SLUICE_RETRIES": "1", "SLUICE_SPEECH_URL": "\(base)/v1",
                        "SLUICE_SPEECH_KEY": key, "SLUICE_UPSTREAM_URL": nil, "SLUICE_UPSTREAM_KEY": nil,
                    ]) { $1 })
                let gateway = try await lab.gateway("g1", logs)
                let client = try await lab.client(gateway)
                var seen = ""
                for model in ["good", "401", "500", "frame", "dashscope", "anthropic", "ollama"] {
                    let request = try await client.request(model: "m-\(model)", fields: [("require_tts", true)])
                    let end = try await request.ended()
                    #expect(end.end == (model == "good" ? .finished : .failed), "\(model): \(end.last?.text ?? "")")
                    seen += end.last?.text ?? ""
                    let answer = try await HTTPCall.post(
                        gateway.port, "/v1/chat/completions",
                        ["model": .string("m-\(model)"), "messages": [["role": "user", "content": "x"]]],
                        headers: ["authorization": "Bearer \(lab.key)"])
                    seen += "\(answer.headers)\(answer.body)"
                }
                try await worker.logs("speech failed")
                #expect(upstream.requests.allSatisfy { $0.contains(key) }, "each is asked with the key")
                #expect(seen.contains("[key]"), "what was left out is marked")
                let redis = try await lab.redis.connect()
                seen += try await Self.dump(redis)
                await redis.close()
                #expect(seen.contains(":log:") && seen.contains(":job:") && seen.contains("audio"))
                for node in [worker, gateway] { seen += try await node.get("/metrics").body + node.log }
                #expect(seen.contains("sluice_speech_failed_total"))
                // A prefix of the key would be a leak, too.
                for range in seen.ranges(of: "sk-canary-upstream").prefix(3) {
                    Issue.record("a key: \(seen[..<range.lowerBound].suffix(300))###\(seen[range.lowerBound...].prefix(100))")
                }
                await upstream.close()
            }
        }
    }
}
