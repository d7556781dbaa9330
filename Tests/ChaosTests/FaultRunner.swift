import NIOCore
import TestSupport

/// Executes a schedule. A place with an active fault gets no second one, so that each fault ends as planned.
actor FaultRunner {
    struct Counts: Sendable {
        var kills = 0
        var freezes = 0
        var cuts = 0
        var slowed = 0
        var restarts = 0
    }

    private enum Busy: Hashable {
        case place(FaultSchedule.Place)
        case link(FaultSchedule.Link)
        case redis
    }

    private let deployment: Deployment
    private(set) var counts = Counts()
    private var busy: Set<Busy> = []

    init(_ deployment: Deployment) { self.deployment = deployment }

    /// Returns when the last fault has ended and all processes are running.
    func run(_ schedule: FaultSchedule) async throws {
        let begun = ContinuousClock.now
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            for entry in schedule.entries {
                try await Task.sleep(until: begun + .milliseconds(entry.at))
                tasks.addTask { try await self.carryOut(entry.fault) }
            }
            try await tasks.waitForAll()
        }
        for member in deployment.all {
            member.toRedis.heal()
            member.other.heal()
        }
    }

    private func carryOut(_ fault: FaultSchedule.Fault) async throws {
        switch fault {
        case .kill(let place, let pause):
            try await whileFree(.place(place)) {
                counts.kills += 1
                let node = deployment.member(place).node
                await node.kill9()
                try await Task.sleep(for: .milliseconds(pause))
                try node.start()
                // Not necessarily ready, since nodes also start without Redis. But it must not be killed before it could do anything.
                try await node.ready(path: "/healthz")
            }
        case .freeze(let place, let time):
            try await whileFree(.place(place)) {
                counts.freezes += 1
                let node = deployment.member(place).node
                node.freeze()
                try await Task.sleep(for: .milliseconds(time))
                node.thaw()
            }
        case .restartRedis(let pause):
            try await whileFree(.redis) {
                counts.restarts += 1
                await deployment.lab.redis.kill()
                try await Task.sleep(for: .milliseconds(pause))
                try await deployment.lab.redis.start()
            }
        case .trouble(let link, let trouble):
            try await whileFree(.link(link)) { try await self.trouble(deployment.proxy(link), trouble) }
        }
    }

    private func whileFree(_ place: Busy, _ body: () async throws -> Void) async throws {
        guard busy.insert(place).inserted else { return }
        defer { busy.remove(place) }
        try await body()
    }

    private func trouble(_ proxy: FaultProxy, _ trouble: FaultSchedule.Trouble) async throws {
        let time: Int
        switch trouble {
        case .cut:
            counts.cuts += 1
            return proxy.cut()
        case .reset:
            counts.cuts += 1
            return proxy.reset()
        case .silence(let milliseconds):
            counts.cuts += 1
            proxy.set { $0.silent = true }
            time = milliseconds
        case .refusal(let milliseconds):
            counts.cuts += 1
            proxy.set { $0.refuses = true }
            proxy.reset()
            time = milliseconds
        case .latency(let latency, let milliseconds):
            counts.slowed += 1
            proxy.set { $0.latency = .milliseconds(Int64(latency)) }
            time = milliseconds
        case .slices(let milliseconds):
            counts.slowed += 1
            proxy.set { $0.slices = true }
            time = milliseconds
        }
        try await Task.sleep(for: .milliseconds(time))
        proxy.heal()
    }
}
