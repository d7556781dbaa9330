import Contract
import Foundation
import TestSupport
import Testing

extension Journeys {
    /// Seeded rubbish at a gateway. `SLUICE_FUZZ_FRAMES` (100,000) says how much of it, `SLUICE_FUZZ_SEED` which.
    @Suite(.timeLimit(.minutes(30))) struct GatewayFuzzTests {
        private static func setting(_ name: String, _ value: Int) -> Int {
            ProcessInfo.processInfo.environment[name].flatMap { Int($0) } ?? value
        }

        @Test func `mutated frames and heads neither end a gateway nor make it grow`() async throws {
            let frames = Self.setting("SLUICE_FUZZ_FRAMES", 100_000)
            let seed = UInt64(Self.setting("SLUICE_FUZZ_SEED", 1))
            try await withLab(simulator: false) { lab in
                let gateway = try await lab.gateway(
                    "g1",
                    [
                        "SLUICE_GRACE": "1s", "SLUICE_MAX_MESSAGES_PER_SECOND": "0", "SLUICE_MAX_MESSAGE": "64KiB",
                        "SLUICE_LOG_LEVEL": "warning",
                    ])
                let process = try #require(gateway.processID)
                let rubbish = GatewayRubbish(port: gateway.port, key: lab.key)
                // What is taken once and kept (buffers, caches, code) is taken in the first part.
                try await rubbish.throwAll(count: frames / 4, seed: seed)
                try await settled(gateway)
                let (memory, descriptors) = (try residentBytes(process), try descriptorCount(process))
                try await rubbish.throwAll(count: frames - frames / 4, seed: seed &+ 1_000)
                try await settled(gateway)
                let grown = try residentBytes(process) - memory
                #expect(grown < 24 << 20, "it grew by \(grown >> 10) KB over \(frames) frames")
                // The answer to a wrong key is held back for up to 4 s, and its connection with it.
                try await until("as few descriptors as before, \(descriptors)") { try descriptorCount(process) <= descriptors + 2 }
                // It still serves whoever comes.
                let client = try await lab.client(gateway)
                try await client.send("HEALTH_CHECK", [:])
                try await client.expect("HEALTH_CHECK_ACK")
                let metrics = try await gateway.get("/metrics").body
                #expect(
                    metrics.contains(#"sluice_refusals_total{code="MALFORMED_PAYLOAD",place="message"}"#), "what was refused is counted")
            }
        }

        /// All rubbish's sockets are gone, and what they had running.
        private func settled(_ gateway: Node) async throws {
            try await until("all sockets to be gone", deadline: .seconds(20)) {
                let metrics = try await gateway.get("/metrics").body.split(separator: "\n")
                return metrics.contains("sluice_gateway_sockets 0") && metrics.contains { $0 == "sluice_gateway_requests_running 0" }
            }
        }

        private func residentBytes(_ process: pid_t) throws -> Int {
            let pages = try String(contentsOfFile: "/proc/\(process)/statm", encoding: .utf8).split(separator: " ")
            return (Int(try #require(pages.dropFirst().first)) ?? 0) * Int(getpagesize())
        }

        private func descriptorCount(_ process: pid_t) throws -> Int {
            try FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/fd").count
        }
    }
}

/// Throws rubbish over blocking sockets, from threads of its own.
private struct GatewayRubbish: Sendable {
    /// Frames sent in one write, with what came back thrown away after it.
    private static let batch = 50
    private static let threads = 2

    let port: Int
    let key: String

    /// Of a hundred, about 96 frames that hold mutated messages, 2 whose bytes are mutated whole, 2 HTTP heads.
    func throwAll(count: Int, seed: UInt64) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<Self.threads {
                group.addTask { try await onThread { try run(count / Self.threads, SplitMix64(seed: seed &+ UInt64(number))) } }
            }
            try await group.waitForAll()
        }
    }

    private func onThread(_ body: @escaping @Sendable () throws -> Void) async throws {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            Thread { continuation.resume(with: Result { try body() }) }.start()
        }
    }

    private func run(_ count: Int, _ generator: SplitMix64) throws {
        var random = generator
        var socket = try registered()
        var sent = 0
        while sent < count {
            var out: [UInt8] = []
            // Rubbish that breaks the stream ends the socket: it comes alone, and last.
            let isBroken = random.next() % 2 == 0
            for _ in 0..<Self.batch {
                var message = Array(messages.randomElement(using: &random)!.utf8)
                mutate(&message, &random)
                appendFrame(opcode: Int.random(in: 0..<400, using: &random) == 0 ? 9 : 1, payload: message, to: &out, &random)
            }
            sent += Self.batch
            if isBroken {
                var frame: [UInt8] = []
                appendFrame(opcode: UInt8(random.next() % 16), payload: Array(messages[0].utf8), to: &frame, &random)
                mutate(&frame, &random)
                out += frame
                sent += 1
            }
            // The gateway may have closed it already.
            let isOpen = socket.send(out) && socket.drain()
            if isBroken || !isOpen {
                socket.close()
                sent += try throwHead(&random)
                socket = try registered()
            }
        }
        socket.close()
    }

    private func throwHead(_ random: inout SplitMix64) throws -> Int {
        var head = Array(heads.randomElement(using: &random)!.replacing("$KEY", with: key).utf8)
        mutate(&head, &random)
        let socket = try BlockingSocket(port: port)
        _ = socket.send(head)
        _ = socket.drain()
        socket.close()
        return 1
    }

    private func registered() throws -> BlockingSocket {
        let socket = try BlockingSocket(port: port)
        _ = socket.send(Array(Self.upgrade.utf8))
        var random = SplitMix64(seed: 7)
        var out: [UInt8] = []
        let auth: JSON = ["type": "API_KEY", "api_key": .string(key)]
        appendFrame(
            opcode: 1, payload: Array(WebSocketClient.envelope("REGISTER", ["auth": auth, "platform": "WEB"]).utf8), to: &out, &random)
        _ = socket.send(out)
        _ = socket.drain()
        return socket
    }

    private static let upgrade = """
        GET /ws/agent/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
        Sec-WebSocket-Version: 13\r\n\r\n
        """

    private let heads = [
        upgrade, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v1/jobs/p0-01M81Y40A87BA2AD2XQ657X3M2 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $KEY\r\n\r\n",
        "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $KEY\r\nContent-Length: 2\r\nIdempotency-Key: a\r\n\r\n{}",
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $KEY\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n0\r\n\r\n",
        "GET /v1/jobs/a%2fb/events?x=%00 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $KEY\r\nLast-Event-ID: 1-2\r\n\r\n",
    ]

    private let messages = [
        WebSocketClient.envelope("HEALTH_CHECK", [:]), WebSocketClient.envelope("SESSION_QUERY", ["query_fields": ["platform"]]),
        WebSocketClient.envelope(
            "REQUEST",
            ["request_id": "r", "data_type": "TEXT", "stream_flag": false, "stream_seq": 0, "content": ["text": "héllo"], "model": "m"]),
        WebSocketClient.envelope(
            "REQUEST",
            [
                "request_id": "s", "content": ["text": ""], "function_calling_op": "ADD",
                "function_calling": [["name": "f", "description": "d", "parameters": ["type": "object"]]],
                "update_session": ["systemPrompt": ["role_description": "x"], "requireTTS": false],
            ]),
        WebSocketClient.envelope("INTERRUPT", ["interrupt_request_id": ["r", "s"], "reason": "USER_STOP"]),
        WebSocketClient.envelope("RESUME", ["request_id": "r", "last_event_id": "1-2"]), WebSocketClient.envelope("HEARTBEAT_REPLY", [:]),
    ]

    /// Up to five changes: bits, bytes that mean something, pieces left out, pieces said twice.
    private func mutate(_ bytes: inout [UInt8], _ random: inout SplitMix64) {
        for _ in 0..<Int.random(in: 1...5, using: &random) where !bytes.isEmpty {
            let place = Int.random(in: bytes.indices, using: &random)
            switch random.next() % 6 {
            case 0: bytes[place] ^= 1 << UInt8(random.next() % 8)
            case 1: bytes[place] = Array(#"{}[]":,\0-9eE.u"#.utf8).randomElement(using: &random)!
            case 2: bytes[place] = UInt8.random(in: 0...255, using: &random)
            case 3: bytes.removeSubrange(place..<min(bytes.count, place + Int.random(in: 1...16, using: &random)))
            case 4: bytes.insert(contentsOf: bytes[place..<min(bytes.count, place + Int.random(in: 1...64, using: &random))], at: place)
            default: bytes.insert(contentsOf: Array(repeating: bytes[place], count: Int.random(in: 1...200, using: &random)), at: place)
            }
        }
    }

    /// A masked frame (RFC 6455, 5.2).
    private func appendFrame(opcode: UInt8, payload: [UInt8], to out: inout [UInt8], _ random: inout SplitMix64) {
        let payload = opcode >= 8 ? Array(payload.prefix(125)) : payload
        out.append(0x80 | opcode)
        if payload.count < 126 {
            out.append(0x80 | UInt8(payload.count))
        } else {
            out += [0x80 | 126, UInt8(payload.count >> 8 & 0xFF), UInt8(payload.count & 0xFF)]
        }
        // Most masks are zeros, which is legal and quick.
        let mask = random.next() % 16 == 0 ? (0..<4).map { _ in UInt8.random(in: 0...255, using: &random) } : [0, 0, 0, 0]
        out += mask
        if mask == [0, 0, 0, 0] {
            out += payload
        } else {
            for (index, byte) in payload.enumerated() { out.append(byte ^ mask[index & 3]) }
        }
    }
}
