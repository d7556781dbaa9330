import Contract
import Glibc
import NIOCore
import NIOPosix
import Observability
import OperatorTools
import Support
import Synchronization

/// The limits that a gateway with default settings holds during an attack by one tenant or address.
struct AbusePromise: Sendable {
    /// Maximum growth of the gateway's resident memory, bytes.
    static let gatewayBytes = 256 << 20
    /// Maximum growth of `used_memory` in Redis, bytes: the tenant's quota of waiting jobs (64 MiB), plus the same amount for its sessions
    /// and the overhead of Redis.
    static let redisBytes = 128 << 20
    /// Maximum increase of another tenant's p99 latency, ms.
    static let addedLatency = 250.0
}

/// `sluice bench abuse`: runs an attack against a deployment of its own and compares another tenant's latency during the attack with its
/// latency at rest.
package struct AbuseBench: Sendable {
    private let isQuick: Bool
    private let seconds: Double
    private let restSeconds: Double
    private let slack: Double
    private let environment: [String: String]

    /// - Parameters:
    ///   - isQuick: smaller attacks, for debug builds.
    ///   - seconds: duration of an attack.
    ///   - restSeconds: duration of the measurement before the attack.
    ///   - slack: factor for the allowed latency, for debug builds and slow machines.
    ///   - environment: environment of the nodes; names that begin with `SLUICE_` are ignored.
    package init(isQuick: Bool, seconds: Double, restSeconds: Double, slack: Double, environment: [String: String]) {
        self.isQuick = isQuick
        self.seconds = seconds
        self.restSeconds = restSeconds
        self.slack = slack
        self.environment = environment
    }

    /// Runs one attack against a new deployment.
    package func run(_ attack: AbuseAttack) async throws -> AbuseFinding {
        let found = Mutex<AbuseFinding?>(nil)
        try await AbuseDeployment.with(for: attack, environment: environment) { deployment in
            let finding = try await measure(attack, deployment)
            found.withLock { $0 = finding }
        }
        guard let finding = found.withLock({ $0 }) else { throw CommandFailure(.failed, "sluice: the attack produced no measurement") }
        return finding
    }

    private func measure(_ attack: AbuseAttack, _ deployment: AbuseDeployment) async throws -> AbuseFinding {
        let attackers = MultiThreadedEventLoopGroup(numberOfThreads: 1), victims = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        // A real attacker has a machine of its own; a lower priority keeps this one from taking CPU time from the nodes.
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
        // Warm-up: one-time work of the nodes must not count.
        _ = await victim.measure(attack.probes, for: .milliseconds(300))
        let rest = await victim.measure(attack.probes, for: .seconds(restSeconds))
        var gateway = MemoryPeak(process: deployment.gatewayProcess), worker = MemoryPeak(process: deployment.workerProcess)
        let redisBefore = try await deployment.redis.usedMemory()
        async let redisPeak = Self.redisPeak(deployment.redis, for: time)
        async let attacking: Void = Self.attack(run, target, for: time)
        let attacked = await victim.measure(attack.probes, for: time)
        try await attacking
        // Work that was in progress at the end of the attack counts too.
        let redisAfter = try await max(redisPeak, deployment.redis.usedMemory())
        gateway.finish()
        worker.finish()
        guard target.done > 0 else { throw CommandFailure(.failed, "sluice: the attack \(attack.name) could not connect to the gateway") }
        return AbuseFinding(
            attack: attack, slack: slack, units: target.done, refused: target.refused, gatewayBytes: gateway.growth,
            workerBytes: worker.growth, redisBytes: max(0, redisAfter - redisBefore), rest: rest, attacked: attacked)
    }

    /// Runs an attack and closes its connections when its time is over.
    private static func attack(_ run: @escaping AbuseAttack.Run, _ target: AbuseTarget, for time: Duration) async throws {
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask {
                do { try await run() } catch is CancellationError {
                    // The attack ended by timeout.
                }
            }
            // Connections stay open for the whole time, even after everything was sent.
            try await Task.sleep(for: time)
            tasks.cancelAll()
            target.end()
            while let result = await tasks.nextResult() {
                if case .failure(let error) = result, !(error is CancellationError) { throw error }
            }
        }
    }

    /// The maximum of `used_memory` during a time, sampled every 50 ms.
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

/// The growth of a process's peak resident memory, in bytes.
struct MemoryPeak: Sendable {
    private let process: Int
    private let before: Int
    private(set) var growth = 0

    /// Resets the kernel's peak value, VmHWM (proc(5), clear_refs).
    init(process: Int) {
        self.process = process
        let file = SystemCalls.open("/proc/\(process)/clear_refs", O_WRONLY)
        if file >= 0 {
            _ = SystemCalls.write(Array("5".utf8), to: file)
            close(file)
        }
        before = ProcessReading.read("", pid: process)?.residentBytes ?? 0
    }

    /// Reads the peak.
    mutating func finish() {
        guard let bytes = try? FileContents.read("/proc/\(process)/status", limit: 1 << 16) else { return }
        for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") where line.hasPrefix("VmHWM:") {
            let kilobytes = Int(line.dropFirst(6).filter(\.isNumber)) ?? 0
            growth = max(0, kilobytes * 1_024 - before)
        }
    }
}
