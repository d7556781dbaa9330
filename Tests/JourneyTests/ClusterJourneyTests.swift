import Contract
import JSONCodec
import NIOCore
import TestSupport
import Testing

extension Journeys {
    /// A Redis Cluster of six servers with 16 partitions, under the ACL user of the operating guide.
    @Suite struct ClusterJourneyTests {
        /// The beginning of a job's keys.
        private static func tag(_ request: ClientRequest) throws -> String {
            "{sluice.\(try request.job.dropFirst().prefix { $0.isNumber })}:"
        }

        /// The slot of a job's partition.
        private static func slot(_ tag: String, in cluster: PrivateCluster) async throws -> Int {
            Int(try #require(try await cluster.servers[5].command("CLUSTER", "KEYSLOT", tag).integer))
        }

        /// A job that was sent by HTTP.
        private static func post(_ lab: Lab, _ gateway: Node, model: String, idempotency: String) async throws -> String {
            let answer = try await HTTPCall.post(
                gateway.port, "/v1/jobs",
                ["request": ["model": .string(model), "messages": [["role": "user", "content": .string(lab.prompt)]]]],
                headers: ["authorization": "Bearer \(lab.key)", "idempotency-key": idempotency])
            #expect(answer.status == 202, "\(answer)")
            return try #require(answer.json?["id"]?.string)
        }

        @Test func `streams and interrupts survive the death of a primary and the move of a slot`() async throws {
            try await withCluster { cluster in
                for server in cluster.servers { try await server.send(AccessRule.command()) }
                let settings: [String: String?] = [
                    "SLUICE_REDIS_URL": AccessRule.url(cluster.url), "SLUICE_PARTITIONS": "16", "SLUICE_LEASE": "4s",
                ]
                try await withLab(redisRuns: false) { lab in
                    let workers = try await lab.workers(2, settings)
                    let gateway = try await lab.gateway("g1", settings)
                    let client = try await lab.client(gateway)
                    func requests(_ models: [String]) async throws -> [ClientRequest] {
                        var requests: [ClientRequest] = []
                        for model in models { requests.append(try await client.request(model: model)) }
                        for request in requests { try await request.tokens(5) }
                        return requests
                    }
                    // The requests of one session share a partition, so that several clients are needed.
                    let stopped = (0..<5).map { _ in lab.model("sim-n5000-g20") }
                    let complete = try await requests((0..<10).map { _ in lab.model("sim-n300-g20") })
                    var others: [(client: WebSocketClient, request: ClientRequest)] = []
                    for _ in 0..<12 {
                        let client = try await lab.client(gateway)
                        others.append((client, try await client.request(model: lab.model("sim-n300-g20"))))
                    }
                    let before = try await requests(stopped)
                    let after = try await requests((0..<5).map { _ in lab.model("sim-n5000-g20") })
                    for request in before {
                        try await client.interrupt(.string(request.id))
                        #expect(try await request.ended().end == .interrupted)
                    }
                    let headers = ["authorization": "Bearer \(lab.key)"]
                    var posted: [(job: String, model: String)] = []
                    for number in 0..<6 {
                        let model = lab.model("sim-n200-g20")
                        posted.append((try await Self.post(lab, gateway, model: model, idempotency: "key-\(number)"), model))
                        #expect(
                            try await Self.post(lab, gateway, model: model, idempotency: "key-\(number)") == posted[number].job,
                            "a repeated submission")
                    }
                    // The primary of the client's partition.
                    let slot = try await Self.slot(try Self.tag(complete[0]), in: cluster)
                    let former = try #require(try await cluster.owner(of: slot))
                    // The slot of a partition with running jobs moves to another primary.
                    let moving = try await Self.slot(try Self.tag(others[0].request), in: cluster)
                    let source = try #require(try await cluster.owner(of: moving))
                    let target = try #require(cluster.servers.prefix(3).first { $0 !== source && $0 !== former })
                    try await cluster.move(moving, to: target)
                    await former.kill()
                    _ = try await cluster.newOwner(of: slot, after: former)
                    for request in after {
                        try await client.interrupt(.string(request.id))
                        #expect(try await request.ended().end == .interrupted)
                    }
                    for request in complete + others.map(\.request) {
                        let end = try await request.ended()
                        #expect(end.end == .finished && end.text == SimulatorText.tokens(300), "\(end.last?.text ?? "")")
                    }
                    for (job, model) in posted {
                        // The answer ends after the terminal event.
                        let answer = try await HTTPCall.get(
                            gateway.port, "/v1/jobs/\(job)/events", headers: headers, deadline: .seconds(120))
                        var checker = EventChecker(job: job, model: model, live: false)
                        for line in answer.body.split(whereSeparator: \.isNewline) where line.hasPrefix("data:") {
                            checker.take(try JSON(parsing: line.dropFirst(5).utf8))
                        }
                        #expect(checker.end == "finished" && checker.problems.isEmpty, "\(checker.problems) \(answer.body.suffix(300))")
                    }
                    #expect(try await client.request(model: lab.model("sim-n3-g1")).ended().end == .finished)
                    for request in complete + before + after + others.map(\.request) {
                        let record = try await cluster.command("HGETALL", key: "\(Self.tag(request))job:\(request.job)").fields
                        #expect(JobState(rawValue: record["state"] ?? "")?.isTerminal == true, "\(record)")
                    }
                    for worker in workers {
                        try await until("\(worker.name) to have no jobs") { try await worker.scrape()["sluice_jobs_in_flight"] == 0 }
                    }
                    let upstream = try await lab.upstream()
                    for model in stopped { #expect(upstream.of(model: model).count == 1, "sent to the model again") }
                    #expect(upstream.running == 0 && client.problems.isEmpty, "\(client.problems)")
                    for other in others { #expect(other.client.problems.isEmpty, "\(other.client.problems)") }
                }
            }
        }
    }
}
