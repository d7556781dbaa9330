import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension Journeys {
    /// Fuzz test of a gateway with seeded frames and HTTP heads. See `Fuzz` for the settings.
    @Suite(.timeLimit(.minutes(30))) struct GatewayFuzzTests {
        @Test func `mutated frames and heads neither crash a gateway nor increase its memory`() async throws {
            let frames = Fuzz.inputs(6_000)
            let seed = Fuzz.seed
            try await withLab(simulator: false) { lab in
                let gateway = try await lab.gateway(
                    "g1",
                    [
                        "SLUICE_GRACE": "1s", "SLUICE_MAX_MESSAGES_PER_SECOND": "0", "SLUICE_MAX_MESSAGE": "64KiB",
                        "SLUICE_MAX_BYTES_PER_SECOND": "0", "SLUICE_QUEUE_MAX": "500",
                        "SLUICE_RECOGNITION_URL": "http://127.0.0.1:1/v1", "SLUICE_MAX_AUDIO": "16KiB",
                        "SLUICE_LOG_LEVEL": "warning",
                    ])
                let process = try #require(gateway.processID)
                let fuzzer = GatewayFuzzer(port: gateway.port, key: lab.key)
                // Memory that is allocated once and kept (buffers, caches, code) is allocated in the first part.
                try await fuzzer.sendAll(count: frames / 4, seed: seed)
                try await settled(gateway)
                let (memory, descriptors) = (try residentBytes(process), try descriptorCount(process))
                try await fuzzer.sendAll(count: frames - frames / 4, seed: seed &+ 1_000)
                try await settled(gateway)
                let grown = try residentBytes(process) - memory
                #expect(grown < 24 << 20, "it grew by \(grown >> 10) KB over \(frames) frames")
                // The answer to a wrong key is delayed by up to 4 s, and its connection stays open until then.
                try await until("as few descriptors as before, \(descriptors)") { try descriptorCount(process) <= descriptors + 2 }
                // It still serves clients.
                let client = try await lab.client(gateway)
                try await client.send("HEALTH_CHECK", [:])
                try await client.expect("HEALTH_CHECK_ACK")
                let metrics = try await gateway.get("/metrics").body
                #expect(
                    metrics.contains(#"sluice_refusals_total{code="MALFORMED_PAYLOAD",place="message"}"#), "what was refused is counted")
            }
        }

        /// Waits until all sockets are closed and their requests have ended.
        private func settled(_ gateway: Node) async throws {
            try await until("all sockets to be gone") {
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

/// Sends mutated input over blocking sockets from its own threads.
private struct GatewayFuzzer: Sendable {
    /// Frames per write, after which received data is discarded.
    private static let batch = 50
    private static let threads = 2

    let port: Int
    let key: String

    /// About 90 % messages on a registered socket, whole or in fragments, 6 % on unregistered ones, 2 % mutated frames, 2 % HTTP heads.
    func sendAll(count: Int, seed: UInt64) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<Self.threads {
                group.addTask { try await onThread { try run(count / Self.threads, seed: seed &+ UInt64(number)) } }
            }
            try await group.waitForAll()
        }
    }

    private func run(_ count: Int, seed: UInt64) throws {
        var fuzzer = MessageFuzzer(seed: seed)
        var random = SplitMix64(seed: ~seed)
        var socket = try registered()
        var sent = 0
        while sent < count {
            var out: [UInt8] = []
            // A mutated frame ends the socket, so it is sent last.
            let isBroken = random.next() % 2 == 0
            for _ in 0..<Self.batch {
                if fuzzer.chance(10) {
                    let audio = [UInt8](repeating: 1, count: fuzzer.chance(20) ? 20_000 : Int.random(in: 0...700, using: &random))
                    appendFrame(opcode: 2, payload: audio, to: &out, &random)
                }
                let pieces = fuzzer.pieces(fuzzer.message())
                for (index, piece) in pieces.enumerated() {
                    if fuzzer.chance(100) { appendFrame(opcode: 9, payload: [1], to: &out, &random) }
                    appendFrame(opcode: index == 0 ? 1 : 0, payload: piece, to: &out, &random, fin: index == pieces.count - 1)
                }
            }
            sent += Self.batch
            if isBroken {
                var frame: [UInt8] = []
                appendFrame(opcode: UInt8(random.next() % 16), payload: fuzzer.message(), to: &frame, &random)
                fuzzer.mutate(&frame)
                out += frame
                sent += 1
            }
            // The gateway may have closed it already.
            let isOpen = socket.send(out) && socket.drain()
            if isBroken || !isOpen {
                socket.close()
                sent += try sendHead(&random, &fuzzer)
                sent += try sendUnregistered(&random, &fuzzer)
                socket = try registered()
            }
        }
        socket.close()
    }

    /// Sends messages before REGISTER.
    private func sendUnregistered(_ random: inout SplitMix64, _ fuzzer: inout MessageFuzzer) throws -> Int {
        var out = Array(Self.upgrade.utf8)
        let count = Int.random(in: 1...10, using: &random)
        for _ in 0..<count {
            appendFrame(opcode: fuzzer.chance(20) ? 0 : 1, payload: fuzzer.message(), to: &out, &random, fin: !fuzzer.chance(20))
        }
        let socket = try BlockingSocket(port: port)
        _ = socket.send(out)
        _ = socket.drain()
        socket.close()
        return count
    }

    private func sendHead(_ random: inout SplitMix64, _ fuzzer: inout MessageFuzzer) throws -> Int {
        var head = Array((heads.randomElement(using: &random) ?? "").replacing("$KEY", with: key).utf8)
        fuzzer.mutate(&head)
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

    /// A masked frame (RFC 6455, 5.2).
    private func appendFrame(opcode: UInt8, payload: [UInt8], to out: inout [UInt8], _ random: inout SplitMix64, fin: Bool = true) {
        let payload = opcode >= 8 ? Array(payload.prefix(125)) : payload
        out.append((fin ? 0x80 : 0) | opcode)
        if payload.count < 126 {
            out.append(0x80 | UInt8(payload.count))
        } else if payload.count > 0xFFFF {
            out += [0x80 | 127] + (0..<8).map { UInt8(truncatingIfNeeded: payload.count >> (56 - 8 * $0)) }
        } else {
            out += [0x80 | 126, UInt8(payload.count >> 8 & 0xFF), UInt8(payload.count & 0xFF)]
        }
        // Most masks are zero, which is valid and fast.
        let mask = random.next() % 16 == 0 ? (0..<4).map { _ in UInt8.random(in: 0...255, using: &random) } : [0, 0, 0, 0]
        out += mask
        if mask == [0, 0, 0, 0] {
            out += payload
        } else {
            for (index, byte) in payload.enumerated() { out.append(byte ^ mask[index & 3]) }
        }
    }
}
