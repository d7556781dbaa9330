import Contract
import Foundation
import JSONCodec
import NIOCore
import NIOHTTP1
import TestSupport
import Testing

extension Journeys {
    /// Cancellations, lost connections and resumptions in random order, on all standard APIs. `TEST_INTERLEAVINGS` sets their number and
    /// `TEST_SEED` the order.
    @Suite struct InterleavingTests {
        private static let count = ProcessInfo.processInfo.environment["TEST_INTERLEAVINGS"].flatMap { Int($0) } ?? 40
        private static let seed = ProcessInfo.processInfo.environment["TEST_SEED"].flatMap { UInt64($0) } ?? .random(in: 0...UInt64.max)

        /// What one client does.
        private struct Step: Sendable {
            let number: Int
            var generator: SplitMix64
            let gateways: [Node]
            let key: String
            /// Ends by itself in at most a fifth of a second, or runs for a minute.
            let model: String

            mutating func pick(_ count: Int) -> Int { Int.random(in: 0..<count, using: &generator) }
            mutating func gateway() -> Node { gateways[pick(gateways.count)] }

            mutating func run() async throws {
                switch pick(5) {
                case 0: try await leave("/v1/chat/completions", #""messages":[{"role":"user","content":"x"}]"#)
                case 1: try await leave("/v1/messages", #""max_tokens":9,"messages":[{"role":"user","content":"x"}]"#)
                case 2: try await leave("/v1/responses", #""input":"x""#)
                case 3: try await background()
                default: try await realtime()
                }
            }

            /// Opens a stream and closes the connection, at once or after some output.
            private mutating func leave(_ path: String, _ members: String) async throws {
                let connection = try await RawHTTPConnection(gateway().port)
                try await connection.request(
                    "POST", path, body: #"{"model":"\#(model)","stream":true,\#(members)}"#, headers: ["Content-Type: application/json"],
                    key: key)
                switch pick(3) {
                case 0: break
                case 1: try await connection.wait(for: "HTTP/1.1 200")
                default: try await connection.wait(for: " w\(pick(4))")
                }
                try await connection.close()
            }

            /// Streams a response in the background, loses the connection, resumes on any gateway, cancels at any time or never.
            private mutating func background() async throws {
                let body = #"{"model":"\#(model)","input":"x","background":true,"stream":true}"#
                let first = try await RawHTTPConnection(gateway().port)
                try await first.request("POST", "/v1/responses", body: body, headers: ["Content-Type: application/json"], key: key)
                try await first.wait(for: pick(2) == 0 ? "response.created" : " w\(pick(3))")
                var text = first.received.value
                try await first.close()
                let id = try #require(text.firstMatch(of: /"id":"(resp_[^"]+)"/)).output.1
                var numbers = Self.numbers(text)
                let cancelsFirst = pick(2) == 0
                let mustCancel = model.contains("n3000")
                if cancelsFirst, mustCancel || pick(2) == 0 { try await cancel(String(id)) }
                // Resumes once or twice; the last one reads to the end.
                for round in 0...pick(2) {
                    let connection = try await RawHTTPConnection(gateway().port)
                    let after = numbers.last ?? 0
                    try await connection.request(
                        "GET", "/v1/responses/\(id)?stream=true&starting_after=\(after)", headers: ["Connection: close"], key: key)
                    if round == 0, !cancelsFirst { try await cancel(String(id)) }
                    text = try await connection.end()
                    let more = Self.numbers(text)
                    #expect(more == Array(after + 1..<after + 1 + more.count), "a gap after \(after): \(more) of \(id), step \(number)")
                    if round == 0 { numbers += more }
                }
                let shown = try await HTTPCall.get(gateway().port, "/v1/responses/\(id)", headers: ["authorization": "Bearer \(key)"])
                let status = shown.json?["status"]?.string
                #expect(status == "cancelled" || !mustCancel && status == "completed", "\(status ?? "none") of \(id), step \(number)")
            }

            private mutating func cancel(_ id: String) async throws {
                let answer = try await HTTPCall.send(
                    .POST, gateway().port, "/v1/responses/\(id)/cancel", headers: ["authorization": "Bearer \(key)"])
                #expect(answer.status == 200, "\(answer.body), step \(number)")
            }

            private static func numbers(_ text: String) -> [Int] {
                // The last event may be incomplete.
                let whole = text.range(of: "\n\n", options: .backwards).map { text[..<$0.lowerBound] } ?? ""
                return whole.matches(of: /"sequence_number":(\d+)/).compactMap { Int($0.output.1) }
            }

            /// Creates and cancels responses in any order, then closes or loses the connection.
            private mutating func realtime() async throws {
                let client = try await WebSocketClient.connect(
                    port: gateway().port, path: "/v1/realtime?model=\(model)", headers: ["authorization": "Bearer \(key)"])
                try await client.expect("session.created")
                try await client.send(text: #"{"type":"session.update","session":{"output_modalities":["text"],"instructions":"x"}}"#)
                for _ in 0..<2 + pick(4) {
                    switch pick(3) {
                    case 0: try await client.send(text: #"{"type":"response.cancel"}"#)
                    case 1: try await client.send(text: #"{"type":"response.create"}"#)
                    default:
                        try await client.send(text: #"{"type":"response.create"}"#)
                        _ = try? await client.expect("response.created", deadline: .milliseconds(pick(100)))
                    }
                }
                if pick(2) == 0 {
                    try await client.send(text: #"{"type":"response.cancel"}"#)
                    // All commands were handled when the last one is answered.
                    try await client.send(text: #"{"type":"end"}"#)
                    try await client.expect("error") { $0["error"]?["code"] == "unknown_event" }
                    await client.close()
                } else {
                    await client.abort()
                }
            }
        }

        @Test func `no order of cancellation, loss and resumption leaves a request open or a gap`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1", ["SLUICE_RETRIES": "0"])
                _ = try await lab.worker("w2", ["SLUICE_RETRIES": "0"])
                let gateways = [try await lab.gateway("g1"), try await lab.gateway("g2")]
                var generator = SplitMix64(seed: Self.seed)
                for start in stride(from: 0, to: Self.count, by: 20) {
                    try await withThrowingTaskGroup(of: Void.self) { tasks in
                        for number in start..<min(start + 20, Self.count) {
                            let model = lab.model(Bool.random(using: &generator) ? "sim-n3000-g20" : "sim-n8-g20")
                            let step = Step(
                                number: number, generator: SplitMix64(seed: generator.next()), gateways: gateways, key: lab.key,
                                model: model)
                            tasks.addTask {
                                var step = step
                                try await step.run()
                            }
                        }
                        try await tasks.waitForAll()
                    }
                }
                try await until("all upstream requests to end; seed \(Self.seed)") {
                    // The list may have more values than a document may have.
                    try await HTTPCall.get(lab.simulator.port, "/sim/requests").body.contains(#""running":0,"#)
                }
                _ = try await HTTPCall.send(.DELETE, lab.simulator.port, "/sim/requests")
            }
        }

        /// Set to measure: `TEST_CANCELLATIONS` is the number of cancellations for each API.
        private static let measured = ProcessInfo.processInfo.environment["TEST_CANCELLATIONS"].flatMap { Int($0) }

        @Test(.enabled(if: measured != nil, "set TEST_CANCELLATIONS to measure"))
        func `the time from a cancellation to the closed upstream connection`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1", ["SLUICE_RETRIES": "0"])
                let gateway = try await lab.gateway("g1")
                let key = lab.key
                func stream(_ path: String, _ body: String) async throws -> RawHTTPConnection {
                    let connection = try await RawHTTPConnection(gateway.port)
                    try await connection.request("POST", path, body: body, headers: ["Content-Type: application/json"], key: key)
                    try await connection.wait(for: " w3")
                    return connection
                }
                for api in ["chat", "messages", "responses", "responses cancel", "realtime"] {
                    var times: [Int] = []
                    for _ in 0..<(Self.measured ?? 0) {
                        let model = lab.model("sim-n3000-g10")
                        let sent: Int
                        switch api {
                        case "chat":
                            let connection = try await stream(
                                "/v1/chat/completions", #"{"model":"\#(model)","stream":true,"messages":[{"role":"user","content":"x"}]}"#)
                            sent = monotonicNanoseconds()
                            try await connection.close()
                        case "messages":
                            let connection = try await stream(
                                "/v1/messages",
                                #"{"model":"\#(model)","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"x"}]}"#)
                            sent = monotonicNanoseconds()
                            try await connection.close()
                        case "realtime":
                            let client = try await WebSocketClient.connect(
                                port: gateway.port, path: "/v1/realtime?model=\(model)", headers: ["authorization": "Bearer \(key)"])
                            try await client.send(
                                text: #"{"type":"session.update","session":{"output_modalities":["text"],"instructions":"x"}}"#)
                            try await client.send(text: #"{"type":"response.create"}"#)
                            try await client.expect("response.output_text.delta")
                            sent = monotonicNanoseconds()
                            try await client.send(text: #"{"type":"response.cancel"}"#)
                            try await client.expect("response.done")
                            await client.close()
                        default:
                            let isCancelled = api == "responses cancel"
                            let connection = try await stream(
                                "/v1/responses", #"{"model":"\#(model)","stream":true,"background":\#(isCancelled),"input":"x"}"#)
                            let id = try #require(connection.received.value.firstMatch(of: /"id":"(resp_[^"]+)"/)).output.1
                            sent = monotonicNanoseconds()
                            if isCancelled {
                                _ = try await HTTPCall.send(
                                    .POST, gateway.port, "/v1/responses/\(id)/cancel", headers: ["authorization": "Bearer \(key)"])
                            }
                            try await connection.close()
                        }
                        let left = try #require(try await lab.endedRequest(model: model).clientLeft)
                        times.append((left - sent) / 1_000)
                    }
                    times.sort()
                    print("\(api): p50 \(times[times.count / 2]) µs, p99 \(times[times.count * 99 / 100]) µs of \(times.count)")
                }
            }
        }
    }
}
