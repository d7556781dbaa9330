import Contract
import Foundation
import TestSupport
import Testing

/// Fuzz test of a gateway with seeded HTTP requests, outside of the journeys because of their time limit. See `Fuzz` for the settings.
@Suite(.serialized, .cpuBound, .timeLimit(.minutes(60)))
struct HTTPFuzzTests {
    private static let threads = 2
    /// Requests per connection.
    private static let batch = 16

    @Test func `a gateway answers after requests of any form`() async throws {
        let inputs = Fuzz.inputs(1_000)
        let seed = Fuzz.seed
        try await withLab(simulator: false) { lab in
            let admin = "admin-" + lab.key
            let gateway = try await lab.gateway(
                "g1", ["SLUICE_ADMIN_KEY": admin, "SLUICE_QUEUE_MAX": "200", "SLUICE_LOG_LEVEL": "error", "SLUICE_GRACE": "1s"])
            let (port, keys) = (gateway.port, [lab.key, lab.key, lab.otherKey, admin])
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<Self.threads {
                    group.addTask {
                        try await onThread {
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
            try await until("all requests to end") {
                // Without completions there is no such line.
                let lines = try await gateway.get("/metrics").body.split(separator: "\n")
                return lines.allSatisfy { !$0.hasPrefix("sluice_gateway_requests_running ") || $0.hasSuffix(" 0") }
            }
        }
    }

    private static func send(_ count: Int, to port: Int, keys: [String], seed: UInt64) throws {
        for first in stride(from: 0, to: count, by: batch) {
            // With its own seed, so that it can be reproduced without the preceding ones.
            var grammar = HTTPGrammar(keys: keys, seed: seed &* 0x1_0000_0000 &+ UInt64(first))
            let socket = try BlockingSocket(port: port)
            defer { socket.close() }
            // The gateway may close the connection in between.
            if socket.send(grammar.connection(of: min(batch, count - first))) { _ = socket.drain() }
        }
    }
}
