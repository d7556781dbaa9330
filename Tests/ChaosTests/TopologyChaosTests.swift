import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension Chaos {
    /// Redis servers whose primaries die, freeze and hand over while clients continue. Promise 8 is checked afterwards.
    @Suite struct TopologyChaosTests {
        @Test func `a cluster that fails over and moves slots loses, doubles and dials again nothing`() async throws {
            try await withCluster { try await Self.run($0) }
        }

        @Test func `sentinels that fail over lose, double and dial again nothing`() async throws {
            try await withSentinels { try await Self.run($0) }
        }

        private static func run(_ redis: some ChaosTopology) async throws {
            let (seed, seconds) = (ChaosSettings.seed, ChaosSettings.topologySeconds)
            print("chaos with topology: seed \(seed), at least \(seconds) s (SLUICE_CHAOS_SEED, SLUICE_CHAOS_TOPOLOGY_SECONDS)")
            try await withLab(redisRuns: false) { lab in
                let deployment = try await Deployment.start(lab, redis: redis, workers: 2, gateways: 2, seed: seed)
                let runner = TopologyFaults(redis, seed: seed)
                let isOver = Observed(false)
                let history = UpstreamHistory()
                let users = (0..<ChaosSettings.users).map {
                    ChaosUser(deployment, name: $0, seed: seed &* 1_000 &+ UInt64($0), mayLoseData: true)
                }
                try await withThrowingTaskGroup(of: Void.self) { tasks in
                    for user in users { tasks.addTask { await user.live { isOver.value } } }
                    tasks.addTask {
                        while !isOver.value {
                            try await history.collect(lab)
                            try await Task.sleep(for: .seconds(5))
                        }
                    }
                    tasks.addTask {
                        defer { isOver.update { $0 = true } }
                        try await runner.run(until: .now + .seconds(seconds))
                    }
                    try await tasks.waitForAll()
                }
                var checker = TopologyChecker(redis)
                try await checker.waitForRest(lab, deployment)
                try await history.collect(lab)
                let upstream = await history.byModel
                var problems: [String] = []
                var stories: [RequestStory] = []
                for user in users {
                    problems += await user.problems
                    stories += await user.stories
                }
                try await checker.check(stories, upstream)
                problems += checker.problems
                print("chaos with topology: \(checker.figures), \(await runner.counts)")
                for problem in problems.prefix(20) { Issue.record("seed \(seed): \(problem)") }
                try ChaosSettings.keepLogs(of: lab)
            }
        }
    }
}

/// All requests to the simulator, which lists its newest 25,000 only.
actor UpstreamHistory {
    /// By number. A request that runs is replaced by what is known of it later.
    private var requests: [Int: SimulatorRequest] = [:]
    private var newest = 0

    var byModel: [String: [SimulatorRequest]] { Dictionary(grouping: requests.values, by: \.model) }

    func collect(_ lab: Lab) async throws {
        // Requests last less than a minute.
        for request in try await lab.upstream(since: max(0, newest - 60_000_000_000)).requests {
            requests[request.number] = request
            newest = max(newest, request.accepted)
        }
    }
}

/// Causes faults, one at a time: each begins when all replicas follow, so that no fault takes the only copy.
actor TopologyFaults {
    private let redis: any ChaosTopology
    private var random: SplitMix64
    /// Faults so far, by name.
    private(set) var counts: [String: Int] = [:]

    init(_ redis: some ChaosTopology, seed: UInt64) {
        self.redis = redis
        random = SplitMix64(seed: seed)
    }

    /// The faults of the short run, one after the other, and then any until `end`.
    func run(until end: ContinuousClock.Instant) async throws {
        let faults = redis.faults
        var round = 0
        while round < redis.shortRun || ContinuousClock.now < end {
            try await redis.waitForReplicas()
            let fault = faults[round < redis.shortRun ? round : Int.random(in: faults.indices, using: &random)]
            try await fault.cause(random.next())
            counts[fault.name, default: 0] += 1
            round += 1
        }
        try await redis.waitForReplicas()
    }
}
