import Contract
import Foundation
import TestSupport
import Testing

extension Journeys {
    /// Every worker is replaced under running streams, as a rollout does it.
    @Suite struct RollingDrainTests {
        /// `SLUICE_TEST_STREAMS` sets another number of streams: 200 of them take twice as long.
        private static let streams = ProcessInfo.processInfo.environment["SLUICE_TEST_STREAMS"].flatMap { Int($0) } ?? 80

        @Test func `SIGTERM to each worker in turn under running streams: none is lost, none counts as a crash`() async throws {
            try await withLab { lab in
                // The drain's time is shorter than the streams: what runs is handed over.
                let environment: [String: String?] = ["SLUICE_DRAIN_TIMEOUT": "300ms", "SLUICE_LEASE": "60s"]
                var workers: [Node] = []
                for name in ["w1", "w2"] { workers.append(try await lab.worker(name, environment)) }
                let gateway = try await lab.gateway("g1", ["SLUICE_LEASE": "60s", "SLUICE_MAX_REQUESTS": "1000"])
                let client = try await lab.client(gateway)
                let tokens = 40
                var requests: [ClientRequest] = []
                for _ in 0..<Self.streams { requests.append(try await client.request(model: lab.model("sim-n\(tokens)-g100"))) }
                try await until("all streams to run", deadline: .seconds(30)) { try await lab.upstream().running == Self.streams }
                for (index, worker) in workers.enumerated() {
                    // The one that replaces it comes first, as with maxUnavailable 0.
                    _ = try await lab.worker("w\(index + 3)", environment)
                    worker.terminate()
                    #expect(try await worker.ended(within: .seconds(20)) == .exited(0))
                }
                var attempts = 0
                for request in requests {
                    #expect(try await request.ended(deadline: .seconds(40)).end == .finished)
                    let record = try await lab.record(request.job)
                    #expect(record["state"] == "finished" && record["crashes"] == "0", "\(record)")
                    attempts += record["attempt"].flatMap { Int($0) } ?? 0
                }
                #expect(client.problems.isEmpty, "\(client.problems.prefix(5))")
                #expect(attempts > Self.streams, "some were handed over")
            }
        }
    }
}
