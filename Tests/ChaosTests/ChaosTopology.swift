import TestSupport

/// Several Redis servers under a deployment, and the faults that they can have.
protocol ChaosTopology: Sendable {
    /// The value of `SLUICE_REDIS_URL`.
    var url: String { get }
    /// Partitions of the deployment.
    var partitions: Int { get }
    /// Kinds of faults. Each returns when another server has taken over; the former one may still be on its way to become a replica.
    var faults: [TopologyFault] { get }
    /// How many of them, from the first on, happen once in the default run.
    var shortRun: Int { get }
    /// Waits until every primary is known to all and has replicas that follow.
    func waitForReplicas() async throws
    /// All hashes whose keys match a pattern.
    func hashes(_ pattern: String) async throws -> [String: [String: String]]
    func exists(_ key: String) async throws -> Bool
}

struct TopologyFault: Sendable {
    let name: String
    /// Causes the fault at a random place.
    let cause: @Sendable (_ random: UInt64) async throws -> Void
}

extension PrivateCluster: ChaosTopology {
    var partitions: Int { 16 }
    var shortRun: Int { 4 }

    var faults: [TopologyFault] {
        [
            TopologyFault(name: "slots moved") { random in
                // Slots of partitions, because others hold nothing.
                let slot = try await self.slot(of: "{sluice.\(random % UInt64(self.partitions))}")
                guard let source = try await self.owner(of: slot), let target = try await self.otherPrimary(than: source) else { return }
                try await self.move(slot, to: target)
            },
            TopologyFault(name: "primaries killed") { random in
                let slot = Self.slot(random)
                guard let primary = try await self.owner(of: slot) else { return }
                await primary.kill()
                _ = try await self.newOwner(of: slot, after: primary)
                try await primary.start()
            },
            TopologyFault(name: "fail-overs by agreement") { random in try await self.failOver(Self.slot(random)) },
            TopologyFault(name: "primaries frozen") { random in
                let slot = Self.slot(random)
                guard let primary = try await self.owner(of: slot) else { return }
                primary.freeze()
                defer { primary.thaw() }
                _ = try await self.newOwner(of: slot, after: primary)
            },
        ]
    }

    private static func slot(_ random: UInt64) -> Int { Int(random % 16_384) }

    func exists(_ key: String) async throws -> Bool { try await command("EXISTS", key: key).integer == 1 }
}

extension PrivateSentinels: ChaosTopology {
    var partitions: Int { 4 }
    /// Each takes about 10 s.
    var shortRun: Int { 2 }

    var faults: [TopologyFault] {
        [
            TopologyFault(name: "primaries killed") { _ in
                let primary = try await self.agreedPrimary()
                await primary.kill()
                let promoted = try await self.newPrimary(after: primary)
                try await primary.start()
                try await primary.follow(promoted)
            },
            TopologyFault(name: "fail-overs by agreement") { _ in try await self.failOver() },
            TopologyFault(name: "primaries frozen") { _ in
                let primary = try await self.agreedPrimary()
                primary.freeze()
                defer { primary.thaw() }
                _ = try await self.newPrimary(after: primary)
            },
            TopologyFault(name: "primaries killed before lagging replicas") { random in
                // What is written now reaches no replica, and is lost.
                let primary = try await self.agreedPrimary()
                for replica in self.servers where replica !== primary { replica.freeze() }
                try await Task.sleep(for: .milliseconds(Int(random % 500)))
                await primary.kill()
                for replica in self.servers where replica !== primary { replica.thaw() }
                let promoted = try await self.newPrimary(after: primary)
                try await primary.start()
                try await primary.follow(promoted)
            },
        ]
    }

    func hashes(_ pattern: String) async throws -> [String: [String: String]] { try await agreedPrimary().hashes(pattern) }

    func exists(_ key: String) async throws -> Bool { try await agreedPrimary().command("EXISTS", key).integer == 1 }
}
