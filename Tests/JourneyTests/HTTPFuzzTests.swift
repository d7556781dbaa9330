import Contract
import Foundation
import TestSupport
import Testing

/// Seeded HTTP requests at a gateway, outside of the journeys for their time limit. `SLUICE_FUZZ_INPUTS` (1,000) says how many, `SLUICE_FUZZ_SEED` (1) which.
@Suite(.serialized, .cpuBound, .timeLimit(.minutes(60)))
struct HTTPFuzzTests {
    private static let threads = 2
    /// Requests of one connection.
    private static let batch = 16

    private static func setting(_ name: String, _ standard: Int) -> Int {
        ProcessInfo.processInfo.environment[name].flatMap { Int($0) } ?? standard
    }

    @Test func `requests of any shape leave a gateway answering`() async throws {
        let inputs = Self.setting("SLUICE_FUZZ_INPUTS", 1_000)
        let seed = UInt64(Self.setting("SLUICE_FUZZ_SEED", 1))
        try await withLab(simulator: false) { lab in
            let admin = "admin-" + lab.key
            let gateway = try await lab.gateway(
                "g1", ["SLUICE_ADMIN_KEY": admin, "SLUICE_QUEUE_MAX": "200", "SLUICE_LOG_LEVEL": "error", "SLUICE_GRACE": "1s"])
            let (port, keys) = (gateway.port, [lab.key, lab.key, lab.otherKey, admin])
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<Self.threads {
                    group.addTask {
                        try await Self.onThread {
                            try Self.send(inputs / Self.threads, to: port, keys: keys, seed: seed &* 1_000 &+ UInt64(number))
                        }
                    }
                }
                try await group.waitForAll()
            }
            #expect(gateway.isRunning, "seed \(seed)")
            #expect(try await gateway.get("/readyz").status == 200, "seed \(seed)")
            let models = try await gateway.get("/v1/models", headers: ["authorization": "Bearer \(lab.key)"])
            #expect(models.status == 200, "seed \(seed)")
            try await until("what was running to be over", deadline: .seconds(30)) {
                // Without any completion there is no such line.
                let lines = try await gateway.get("/metrics").body.split(separator: "\n")
                return lines.allSatisfy { !$0.hasPrefix("sluice_gateway_requests_running ") || $0.hasSuffix(" 0") }
            }
        }
    }

    private static func send(_ count: Int, to port: Int, keys: [String], seed: UInt64) throws {
        for first in stride(from: 0, to: count, by: batch) {
            // Of its own seed, so that it can be repeated without those before it.
            var grammar = HTTPGrammar(keys: keys, seed: seed &* 0x1_0000_0000 &+ UInt64(first))
            let socket = try BlockingSocket(port: port)
            defer { socket.close() }
            // Whether the gateway closes it in between is its own affair.
            if socket.send(grammar.connection(of: min(batch, count - first))) { _ = socket.drain() }
        }
    }

    private static func onThread(_ body: @escaping @Sendable () throws -> Void) async throws {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            Thread { continuation.resume(with: Result { try body() }) }.start()
        }
    }
}
