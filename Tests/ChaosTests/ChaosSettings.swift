import Foundation
import TestSupport

/// Settings from the environment.
enum ChaosSettings {
    private static func number(_ name: String) -> Int? { ProcessInfo.processInfo.environment[name].flatMap { Int($0) } }

    /// `SLUICE_CHAOS_SEED`: repeats a schedule; else a new one each time, which the run prints.
    static let seed = UInt64(number("SLUICE_CHAOS_SEED") ?? Int.random(in: 1...999_999))
    /// `SLUICE_CHAOS_SECONDS`: for how long faults happen.
    static let seconds = max(5, number("SLUICE_CHAOS_SECONDS") ?? 20)
    /// `SLUICE_CHAOS_STREAMS`: how many streams run while every process is killed in turn.
    static let streams = max(1, number("SLUICE_CHAOS_STREAMS") ?? 120)
    /// `SLUICE_CHAOS_USERS`: clients at once.
    static let users = max(1, number("SLUICE_CHAOS_USERS") ?? 12)

    /// `SLUICE_CHAOS_TOPOLOGY_SECONDS`: for how long a cluster and a group with sentinels have faults; at least those of a short run.
    static let topologySeconds = max(0, number("SLUICE_CHAOS_TOPOLOGY_SECONDS") ?? 0)

    /// `SLUICE_CHAOS_LOGS`: the folder in which a run leaves the logs of its nodes, because the lab's folder is removed. Created if missing.
    static func keepLogs(of lab: Lab) throws {
        guard let folder = ProcessInfo.processInfo.environment["SLUICE_CHAOS_LOGS"] else { return }
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        for node in lab.nodes { try node.log.write(toFile: "\(folder)/\(seed)-\(node.name).log", atomically: false, encoding: .utf8) }
    }

    static let minutes = 15 + max(seconds, topologySeconds) / 60
}
