import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension Chaos {
    /// A cluster whose primaries die, freeze and hand over, and whose slots move, while clients continue. Promise 8 is checked afterwards.
    @Suite struct TopologyChaosTests {
        @Test func `a cluster that fails over and moves slots loses, doubles and dials again nothing`() async throws {
            let (seed, seconds) = (ChaosSettings.seed, ChaosSettings.topologySeconds)
            print("chaos with topology: seed \(seed), at least \(seconds) s (SLUICE_CHAOS_SEED, SLUICE_CHAOS_TOPOLOGY_SECONDS)")
            try await withCluster { cluster in
                try await withLab(redisRuns: false) { lab in
                    let deployment = try await Deployment.start(lab, cluster: cluster, workers: 2, gateways: 2, seed: seed)
                    let runner = TopologyFaults(cluster, seed: seed)
                    let isOver = Observed(false)
                    let users = (0..<ChaosSettings.users).map { ChaosUser(deployment, name: $0, seed: seed &* 1_000 &+ UInt64($0)) }
                    try await withThrowingTaskGroup(of: Void.self) { tasks in
                        for user in users { tasks.addTask { await user.live { isOver.value } } }
                        tasks.addTask {
                            defer { isOver.update { $0 = true } }
                            try await runner.run(until: .now + .seconds(seconds))
                        }
                        try await tasks.waitForAll()
                    }
                    var checker = TopologyChecker(cluster)
                    try await checker.waitForRest(lab, deployment)
                    var problems: [String] = []
                    for user in users {
                        problems += await user.problems
                        try await checker.check(lab, await user.stories)
                    }
                    problems += checker.problems
                    print("chaos with topology: \(checker.figures), \(await runner.counts)")
                    for problem in problems.prefix(20) { Issue.record("seed \(seed): \(problem)") }
                }
            }
        }
    }
}

/// Faults of a cluster, one at a time: each begins when all replicas have what their primaries have, so that no fault takes the only copy.
actor TopologyFaults {
    struct Counts: Sendable {
        var killed = 0
        var frozen = 0
        var handedOver = 0
        var moved = 0
    }

    private let cluster: PrivateCluster
    private var random: SplitMix64
    private(set) var counts = Counts()

    init(_ cluster: PrivateCluster, seed: UInt64) {
        self.cluster = cluster
        random = SplitMix64(seed: seed)
    }

    /// Each kind of fault once, and then further ones until `end`.
    func run(until end: ContinuousClock.Instant) async throws {
        var round = 0
        while round < 4 || ContinuousClock.now < end {
            try await cluster.waitForReplicas()
            let slot = Int.random(in: 0..<16_384, using: &random)
            switch round < 4 ? round : Int.random(in: 0..<4, using: &random) {
            case 0:
                // Slots of partitions, because others hold nothing.
                let partition = Int.random(in: 0..<Deployment.partitions, using: &random)
                try await move(try await cluster.slot(of: "{sluice.\(partition)}"))
                counts.moved += 1
            case 1:
                guard let primary = try await cluster.owner(of: slot) else { continue }
                await primary.kill()
                _ = try await cluster.newOwner(of: slot, after: primary)
                try await primary.start()
                counts.killed += 1
            case 2:
                try await cluster.failOver(slot)
                counts.handedOver += 1
            default:
                guard let primary = try await cluster.owner(of: slot) else { continue }
                primary.freeze()
                defer { primary.thaw() }
                _ = try await cluster.newOwner(of: slot, after: primary)
                counts.frozen += 1
            }
            round += 1
        }
        try await cluster.waitForReplicas()
    }

    private func move(_ slot: Int) async throws {
        guard let source = try await cluster.owner(of: slot), let target = try await cluster.otherPrimary(than: source) else { return }
        try await cluster.move(slot, to: target)
    }
}
