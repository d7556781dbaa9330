import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension FaultJourneys {
    /// All workers are replaced during running streams, as in a rollout.
    @Suite struct RollingDrainTests {
        /// `SLUICE_TEST_STREAMS` sets another number of streams: 200 of them take twice as long.
        private static let streams = ProcessInfo.processInfo.environment["SLUICE_TEST_STREAMS"].flatMap { Int($0) } ?? 80

        @Test func `SIGTERM to each worker in turn loses no running stream and counts no crash`() async throws {
            try await withLab { lab in
                // Shorter than the streams, so that running jobs are handed over.
                let environment: [String: String?] = ["SLUICE_DRAIN_TIMEOUT": "300ms", "SLUICE_LEASE": "600s"]
                var workers: [Node] = []
                for name in ["w1", "w2"] { workers.append(try await lab.worker(name, environment)) }
                let gateway = try await lab.gateway("g1", ["SLUICE_LEASE": "600s", "SLUICE_MAX_REQUESTS": "1000"])
                let client = try await lab.client(gateway)
                let tokens = 40
                var requests: [ClientRequest] = []
                for _ in 0..<Self.streams { requests.append(try await client.request(model: lab.model("sim-n\(tokens)-g100"))) }
                // Streams that cannot end before their worker does, so that it has to hand them over.
                var endless: [ClientRequest] = []
                for _ in 0..<4 { endless.append(try await client.request(model: lab.model("sim-n100000-g100"))) }
                for request in requests + endless { try await request.tokens(1) }
                for (index, worker) in workers.enumerated() {
                    // Its replacement starts first, as with maxUnavailable 0.
                    _ = try await lab.worker("w\(index + 3)", environment)
                    worker.terminate()
                    #expect(try await worker.ended() == .exited(0))
                }
                for request in requests {
                    #expect(try await request.ended().end == .finished)
                    let record = try await lab.record(request.job)
                    #expect(record["state"] == "finished" && record["crashes"] == "0", "\(record)")
                }
                for request in endless {
                    let record = try await until("a new worker to run it") {
                        let record = try await lab.record(request.job)
                        return record["state"] == "running" && ["w3", "w4"].contains(record["worker"]) ? record : nil
                    }
                    #expect(record["crashes"] == "0" && record["attempt"].flatMap { Int($0) } ?? 0 > 1, "\(record)")
                    try await client.interrupt(.string(request.id))
                    #expect(try await request.ended().end == .interrupted)
                }
                #expect(client.problems.isEmpty, "\(client.problems.prefix(5))")
            }
        }
    }
}
