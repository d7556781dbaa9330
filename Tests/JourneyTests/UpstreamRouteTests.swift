import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension Journeys {
    /// Several upstreams: the order of fallbacks, and circuit breakers.
    @Suite struct UpstreamRouteTests {
        /// Two upstreams with the same model; the second is the fallback.
        private static func file(
            _ lab: Lab, first: Int, second: Int, model: String = "sim-n3-g1", extra: String = "", name: String = "first"
        ) -> String {
            """
            upstreams:
              - name: \(name)
                url: http://127.0.0.1:\(first)/v1
                aliases: {m: \(model)}
                fallback: [second]
                \(extra)
              - name: second
                url: http://127.0.0.1:\(second)/v1
                aliases: {m: sim-n3-g1}
            """
        }

        private static func write(_ text: String, _ lab: Lab) throws -> String {
            let path = lab.folder.file("upstreams.yaml")
            try Data(text.utf8).write(to: URL(fileURLWithPath: path), options: .atomic)
            return path
        }

        private static func worker(
            _ lab: Lab, _ path: String, name: String = "w1", retries: Int = 0, concurrency: Int = 256
        ) async throws -> Node {
            try await lab.worker(
                name,
                [
                    "SLUICE_UPSTREAM_URL": nil, "SLUICE_UPSTREAM_KEY": nil, "SLUICE_UPSTREAMS_FILE": path, "SLUICE_RETRIES": "\(retries)",
                    "SLUICE_DEFAULT_MODEL": "m", "SLUICE_CONCURRENCY": "\(concurrency)",
                ])
        }

        private static func run(_ front: FrontEnd, model: String = "m") async throws -> FollowedJob {
            // The checker knows the text of the simulator's models only, not of aliases.
            let job = try await front.submit(model: model)
            try await job.ended()
            return job
        }

        private static func upstreams(_ job: FollowedJob) -> [String] {
            job.received.events.filter { $0["type"] == "upstream" }.compactMap { $0["name"]?.string }
        }

        @Test func `the circuit breaker of a dead upstream opens, and a probe closes it`() async throws {
            try await withLab { lab in
                let port = Ports.free()
                let worker = try await Self.worker(lab, Self.write(Self.file(lab, first: port, second: lab.simulator.port), lab))
                let front = try await FrontEnd(lab.redis)
                for _ in 0..<6 {
                    let job = try await Self.run(front)
                    #expect(job.received.end == "finished" && Self.upstreams(job) == ["second"] && job.received.problems.isEmpty)
                    #expect(try await job.record()["upstream"] == "second")
                }
                try await worker.logs("circuit breaker opened")
                let first = try lab.command("first", ["simulate", "--listen", "127.0.0.1:\(port)"], port: port)
                try await first.ready(path: "/sim/requests")
                let back = try await until("a request to the first upstream", every: .milliseconds(200)) {
                    let job = try await Self.run(front)
                    #expect(job.received.end == "finished")
                    return Self.upstreams(job) == ["first"] ? job : nil
                }
                #expect(try await back.record()["upstream"] == "first")
                #expect(try await SimulatorRequests(port: port).total == 1, "the first job there was the probe")
                await front.close()
            }
        }

        @Test func `the circuit breaker opens after five failures of a model`() async throws {
            try await withLab { lab in
                let port = Ports.free()
                let first = try lab.command("first", ["simulate", "--listen", "127.0.0.1:\(port)"], port: port)
                try await first.ready(path: "/sim/requests")
                let path = try Self.write(Self.file(lab, first: port, second: lab.simulator.port, model: "sim-n3-g1-e503"), lab)
                _ = try await Self.worker(lab, path, retries: 1)
                let front = try await FrontEnd(lab.redis)
                for _ in 0..<8 { #expect(Self.upstreams(try await Self.run(front)) == ["second"]) }
                #expect(try await SimulatorRequests(port: port).total == 5)
                #expect(try await lab.upstream().total == 8)
                await front.close()
            }
        }

        @Test func `a job's own time limit does not open the circuit breaker`() async throws {
            try await withLab { lab in
                let path = lab.folder.file("upstreams.yaml")
                let port = lab.simulator.port
                try Data(Self.file(lab, first: port, second: port, model: "sim-n3-g1-f60000").utf8).write(to: URL(fileURLWithPath: path))
                let worker = try await lab.worker(
                    "w1",
                    [
                        "SLUICE_UPSTREAM_URL": nil, "SLUICE_UPSTREAM_KEY": nil, "SLUICE_UPSTREAMS_FILE": path, "SLUICE_RETRIES": "0",
                        "SLUICE_FIRST_TOKEN_TIMEOUT": "200ms",
                    ])
                let front = try await FrontEnd(lab.redis)
                for _ in 0..<6 { try await front.submit(model: "m", fields: [("first_token_timeout_ms", 100)]).ended() }
                #expect(!worker.log.contains("circuit breaker opened"))
                // A limit that is not shorter than the worker's counts.
                for _ in 0..<6 { try await front.submit(model: "m", fields: [("first_token_timeout_ms", 200)]).ended() }
                try await worker.logs("circuit breaker opened")
                await front.close()
            }
        }

        @Test func `limits lead to the next upstream; without one the job waits`() async throws {
            try await withLab { lab in
                let port = Ports.free()
                let first = try lab.command("first", ["simulate", "--listen", "127.0.0.1:\(port)"], port: port)
                try await first.ready(path: "/sim/requests")
                let text =
                    Self.file(lab, first: port, second: lab.simulator.port, extra: "requests_per_minute: 2") + """

                          - name: narrow
                            url: http://127.0.0.1:\(port)/v1
                            models: [sim-n20-g10]
                            concurrency: 1
                        """
                _ = try await Self.worker(lab, Self.write(text, lab))
                let front = try await FrontEnd(lab.redis)
                var names: [[String]] = []
                for _ in 0..<4 { names.append(Self.upstreams(try await Self.run(front))) }
                #expect(names == [["first"], ["first"], ["second"], ["second"]])

                var jobs: [FollowedJob] = []
                for _ in 0..<3 { jobs.append(try await front.submit(model: "sim-n20-g10")) }
                for job in jobs { #expect(try await job.ended()["type"] == "finished") }
                let seen = try await SimulatorRequests(port: port).of(model: "sim-n20-g10").sorted { $0.accepted < $1.accepted }
                #expect(seen.count == 3)
                // An answer takes at least its 19 gaps of 10 ms. (The simulator may record an end later than the worker sees it.)
                for (earlier, later) in zip(seen, seen.dropFirst()) {
                    #expect(later.accepted - earlier.accepted >= 189_000_000, "two ran at once")
                }
                await front.close()
            }
        }

        @Test func `jobs that wait for a limit hold no slot and start in order of arrival`() async throws {
            try await withLab { lab in
                let port = lab.simulator.port
                let text =
                    Self.file(lab, first: port, second: port) + """

                          - name: narrow
                            url: http://127.0.0.1:\(port)/v1
                            models: [sim-n20-g10]
                            concurrency: 1
                          - name: shared
                            url: http://127.0.0.1:\(port)/v1
                            models: [sim-n20-g11]
                            concurrency: 2
                        """
                let path = try Self.write(text, lab)
                _ = try await Self.worker(lab, path, concurrency: 2)
                let front = try await FrontEnd(lab.redis)
                let all = try await lab.upstream()
                // More than the worker has slots.
                var jobs: [FollowedJob] = []
                for _ in 0..<5 { jobs.append(try await front.submit(model: "sim-n20-g10")) }
                let other = try await front.submit(model: "m")
                #expect(try await other.ended()["type"] == "finished")
                for job in jobs { #expect(try await job.ended()["type"] == "finished") }
                let requests = try await lab.upstream().requests.dropFirst(all.requests.count).sorted { $0.accepted < $1.accepted }
                // The other upstream's job was not the last, and the waiting ones kept their order.
                #expect(requests.count == 6 && requests.last?.model == "sim-n20-g10")
                #expect(requests.filter { $0.model == "sim-n20-g10" }.map(\.tag) == jobs.map(\.id))

                // The limit holds over three workers: the third answer begins when the first has ended, at least 19 gaps of 11 ms later.
                for name in ["w2", "w3"] { _ = try await Self.worker(lab, path, name: name, concurrency: 2) }
                var more: [FollowedJob] = []
                for _ in 0..<9 { more.append(try await front.submit(model: "sim-n20-g11")) }
                for job in more { #expect(try await job.ended()["type"] == "finished") }
                let seen = try await lab.upstream().of(model: "sim-n20-g11").sorted { $0.accepted < $1.accepted }
                #expect(seen.count == 9)
                for (earlier, later) in zip(seen, seen.dropFirst(2)) {
                    #expect(later.accepted - earlier.accepted >= 208_000_000, "three ran at once")
                }
                await front.close()
            }
        }

        /// The models that a gateway lists.
        private static func models(_ lab: Lab, _ gateway: Node) async throws -> [String] {
            let answer = try await gateway.get("/v1/models", headers: ["authorization": "Bearer \(lab.key)"])
            return answer.json?["data"]?.array?.compactMap { $0["id"]?.string } ?? []
        }

        @Test func `SIGHUP reloads the file and rejects an invalid one`() async throws {
            try await withLab { lab in
                let gateway = try await lab.gateway("g1", ["SLUICE_DEFAULT_MODEL": "house"])
                #expect(try await Self.models(lab, gateway) == ["house"])
                let port = lab.simulator.port
                let path = try Self.write(Self.file(lab, first: port, second: port), lab)
                let worker = try await Self.worker(lab, path)
                let front = try await FrontEnd(lab.redis)
                #expect(Self.upstreams(try await Self.run(front)) == ["first"])
                try await until("the model in the list") { try await Self.models(lab, gateway) == ["house", "m"] }
                let one = try await gateway.get("/v1/models/m", headers: ["authorization": "Bearer \(lab.key)"])
                #expect(one.status == 200 && one.json?["id"] == "m")
                _ = try Self.write(
                    Self.file(lab, first: port, second: port, extra: "models: [org/new]", name: "other"), lab)
                kill(try #require(worker.processID), SIGHUP)
                try await until("the worker to have reloaded") { worker.log.contains("upstreams reloaded") }
                #expect(Self.upstreams(try await Self.run(front)) == ["other"])
                try await until("the new model in the list") { try await Self.models(lab, gateway) == ["house", "m", "org/new"] }
                let slashed = try await gateway.get("/v1/models/org/new", headers: ["authorization": "Bearer \(lab.key)"])
                #expect(slashed.json?["id"] == "org/new")
                _ = try Self.write(Self.file(lab, first: port, second: port, extra: "colour: green", name: "third"), lab)
                kill(try #require(worker.processID), SIGHUP)
                try await until("the worker to have refused it") { worker.log.contains("upstreams reload failed") }
                try await worker.logs("colour")
                #expect(Self.upstreams(try await Self.run(front)) == ["other"])
                await front.close()
            }
        }
    }
}
