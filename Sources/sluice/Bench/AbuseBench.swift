import Contract
import Glibc
import NIOCore
import NIOPosix
import Observability
import Synchronization

/// What a gateway with default settings promises while one tenant or address does its worst.
struct AbusePromise: Sendable {
    /// Growth of the gateway's resident memory.
    static let gatewayBytes = 256 << 20
    /// Growth of Redis' `used_memory`: a tenant's quota of waiting jobs (64 MiB), and as much for its sessions and for Redis' own overhead.
    static let redisBytes = 128 << 20
    /// Added to the p99 of another tenant's wait, ms.
    static let addedLatency = 250.0
}

/// Attacks one deployment after the other, each with one attack, and compares what a second tenant waits with what it waits at rest.
struct AbuseBench: Sendable {
    var isQuick = false
    /// How long an attack lasts, and how long the victim is measured before it.
    var seconds = 5.0
    var restSeconds = 2.0
    /// Multiplies the allowed latency: for builds and machines that are not meant for production.
    var slack = 1.0

    func run(_ attack: AbuseAttack) async throws -> AbuseFinding {
        let found = Mutex<AbuseFinding?>(nil)
        try await AbuseDeployment.with(for: attack) { deployment in
            let finding = try await measure(attack, deployment)
            found.withLock { $0 = finding }
        }
        guard let finding = found.withLock({ $0 }) else { throw CommandFailure(.failed, "sluice: the attack was not measured") }
        return finding
    }

    private func measure(_ attack: AbuseAttack, _ deployment: AbuseDeployment) async throws -> AbuseFinding {
        let attackers = MultiThreadedEventLoopGroup(numberOfThreads: 1), victims = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        // An attacker has a machine of its own: here it must not take the processor from those that it attacks.
        try await attackers.next().submit { _ = setpriority(Int32(PRIO_PROCESS.rawValue), 0, 10) }.get()
        let target = AbuseTarget(gateway: deployment.gateway, redis: deployment.redis, isQuick: isQuick, group: attackers)
        let victim = AbuseVictim(gateway: deployment.gateway, group: victims, patience: .seconds(isQuick ? 6 : 20))
        let finding: AbuseFinding
        do {
            finding = try await measure(attack, deployment, target, victim)
        } catch {
            target.end()
            try await attackers.shutdownGracefully()
            try await victims.shutdownGracefully()
            throw error
        }
        try await attackers.shutdownGracefully()
        try await victims.shutdownGracefully()
        return finding
    }

    private func measure(
        _ attack: AbuseAttack, _ deployment: AbuseDeployment, _ target: AbuseTarget, _ victim: AbuseVictim
    ) async throws -> AbuseFinding {
        let run = try await attack.prepare(target)
        let time = Duration.seconds(seconds * attack.timeFactor)
        // What a node does only once is not the attack's.
        _ = await victim.measure(attack.probes, for: .milliseconds(300))
        let rest = await victim.measure(attack.probes, for: .seconds(restSeconds))
        var gateway = MemoryPeak(process: deployment.gatewayProcess), worker = MemoryPeak(process: deployment.workerProcess)
        let redisBefore = try await deployment.redis.usedMemory()
        async let redisPeak = Self.redisPeak(deployment.redis, for: time)
        async let attacking: Void = Self.attack(run, target, for: time)
        let attacked = await victim.measure(attack.probes, for: time)
        try await attacking
        // What was under way when the attack ended still counts.
        let redisAfter = try await max(redisPeak, deployment.redis.usedMemory())
        gateway.finish()
        worker.finish()
        guard target.done > 0 else { throw CommandFailure(.failed, "sluice: \(attack.name) reached no gateway") }
        return AbuseFinding(
            attack: attack, slack: slack, units: target.done, refused: target.refused, gatewayBytes: gateway.growth,
            workerBytes: worker.growth, redisBytes: max(0, redisAfter - redisBefore), rest: rest, attacked: attacked)
    }

    /// Runs an attack and closes its connections when its time is over.
    private static func attack(_ run: @escaping AbuseAttack.Run, _ target: AbuseTarget, for time: Duration) async throws {
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask {
                do { try await run() } catch is CancellationError {
                    // Its time was over.
                }
            }
            // An attack that has sent everything still holds its connections.
            try await Task.sleep(for: time)
            tasks.cancelAll()
            target.end()
            while let result = await tasks.nextResult() {
                if case .failure(let error) = result, !(error is CancellationError) { throw error }
            }
        }
    }

    private static func redisPeak(_ redis: BenchRedis, for time: Duration) async throws -> Int {
        let end = ContinuousClock.now + time
        var peak = 0
        while ContinuousClock.now < end {
            peak = max(peak, try await redis.usedMemory())
            try await Task.sleep(for: .milliseconds(50))
        }
        return peak
    }
}

/// The peak of a process's resident memory over what it had at the beginning.
struct MemoryPeak: Sendable {
    private let process: Int
    private let before: Int
    private(set) var growth = 0

    /// Resets the kernel's own peak, VmHWM (proc(5), clear_refs).
    init(process: Int) {
        self.process = process
        let file = open("/proc/\(process)/clear_refs", O_WRONLY)
        if file >= 0 {
            _ = write(file, "5", 1)
            close(file)
        }
        before = ProcessReading.read("", pid: process)?.residentBytes ?? 0
    }

    mutating func finish() {
        guard case .success(let bytes) = FileContents.read("/proc/\(process)/status", limit: 1 << 16) else { return }
        for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") where line.hasPrefix("VmHWM:") {
            let kilobytes = Int(line.dropFirst(6).filter(\.isNumber)) ?? 0
            growth = max(0, kilobytes * 1_024 - before)
        }
    }
}
