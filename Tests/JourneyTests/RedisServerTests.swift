import Contract
import JSONCodec
import TestSupport
import Testing

extension Journeys {
    /// What the nodes need of a server, under the access rule of the operating guide.
    @Suite struct RedisServerTests {
        @Test func `the rights of the guide suffice`() async throws { try await Self.journey(PrivateRedis.executable) }

        @Test(.needs(.valkey)) func `the nodes work with Valkey, under the same rights`() async throws {
            let info = try await Self.journey(TestProgram.valkey.require())
            #expect(info.contains("valkey_version:"), "\(info)")
        }

        /// Streams, interrupts and operators' commands with one server program.
        /// - Returns: the section `server` of its INFO.
        @discardableResult
        private static func journey(_ program: String) async throws -> String {
            try await withLab(redis: PrivateRedis.Options(program: program)) { lab in
                try await lab.redis.send(AccessRule.command())
                let settings: [String: String?] = ["SLUICE_REDIS_URL": AccessRule.url(lab.redis.url), "SLUICE_PARTITIONS": "2"]
                let worker = try await lab.worker("w1", settings)
                let gateway = try await lab.gateway("g1", settings)
                let client = try await lab.client(gateway)
                let long = try await client.request(model: lab.model("sim-n5000-g10"))
                try await long.tokens(5)
                #expect(try await client.request(model: lab.model("sim-n20-g1")).ended().end == .finished)
                try await client.interrupt(.string(long.id))
                #expect(try await long.ended().end == .interrupted)
                try await until("the upstream to be idle") { try await lab.upstream().running == 0 }
                // What the user may not do is logged there, also what a node ignores.
                let denied = try await lab.redis.command("ACL", "LOG")
                #expect(denied.array?.isEmpty == true, "\(denied)")
                try await until("no job in flight") { try await worker.scrape()["sluice_jobs_in_flight"] == 0 }
                #expect(client.problems.isEmpty, "\(client.problems)")
                let check = try await Executable.run(
                    "config", "check", "--connect", environment: ["SLUICE_REDIS_URL": AccessRule.url(lab.redis.url)])
                #expect(check.status == .exited(0), "\(check.errors)")
                return try await lab.redis.command("INFO", "server").string ?? ""
            }
        }

        /// Commands, and the renewal intervals of the worker, so far.
        private static func counts(
            _ redis: PrivateRedis, without names: Set<String> = []
        ) async throws -> (commands: Int, intervals: Int) {
            var (commands, echoes) = (0, 0)
            for line in (try await redis.command("INFO", "commandstats").string ?? "").split(whereSeparator: \.isNewline) {
                let parts = line.split(separator: ":", maxSplits: 1)
                guard parts.count == 2, parts[0] != "cmdstat_info", !names.contains(String(parts[0].dropFirst("cmdstat_".count))),
                    let calls = parts[1].split(separator: ",").first,
                    let count = Int(calls.dropFirst("calls=".count))
                else { continue }
                commands += count
                // The worker checks its replies with two of them, once per interval.
                if parts[0] == "cmdstat_echo" { echoes = count }
            }
            return (commands, echoes / 2)
        }

        @Test func `an idle worker of 1,024 partitions sends at most 20 commands a second`() async throws {
            try await withLab(simulator: false) { lab in
                _ = try await lab.worker(
                    "w1",
                    ["SLUICE_PARTITIONS": "1024", "SLUICE_LEASE": "12s", "SLUICE_UPSTREAM_URL": "http://127.0.0.1:9/v1"])
                var begun: (commands: Int, intervals: Int)?
                try await until("two renewal intervals, of 4 s each, with at most 160 commands", every: .milliseconds(200)) {
                    let now = try await Self.counts(lab.redis)
                    guard let start = begun, now.intervals < start.intervals + 2 else {
                        if let start = begun, now.commands - start.commands <= 160 { return true }
                        begun = now
                        return false
                    }
                    return false
                }
            }
        }

        @Test func `an idle worker of 1,024 partitions sends at most 20 commands a second to a cluster, and stops at once`() async throws {
            var options = PrivateCluster.Options()
            options.replicas = 0
            try await withCluster(options) { cluster in
                try await withLab(simulator: false, redisRuns: false) { lab in
                    let worker = try await lab.worker(
                        "w1",
                        [
                            "SLUICE_REDIS_URL": cluster.url, "SLUICE_PARTITIONS": "1024", "SLUICE_LEASE": "12s",
                            "SLUICE_UPSTREAM_URL": "http://127.0.0.1:9/v1",
                        ])
                    /// Commands so far, and the time of a server in seconds. A script looks for keys, and this test asks for the time.
                    func counts() async throws -> (commands: Int, seconds: Int) {
                        var commands = 0
                        for server in cluster.servers { commands += try await Self.counts(server, without: ["exists", "time"]).commands }
                        return (commands, Int(try await cluster.servers[0].command("TIME").array?.first?.string ?? "") ?? 0)
                    }
                    var begun: (commands: Int, seconds: Int)?
                    try await until("8 s with at most 160 commands", every: .milliseconds(200)) {
                        let now = try await counts()
                        guard let start = begun else {
                            begun = now
                            return false
                        }
                        guard now.seconds >= start.seconds + 8 else { return false }
                        begun = now
                        return now.commands - start.commands <= 160
                    }
                    // Its blocking reads last 102 s.
                    worker.terminate()
                    #expect(try await worker.ended() == .exited(0))
                    await worker.destroy()
                }
            }
        }
    }
}
