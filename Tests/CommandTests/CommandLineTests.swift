import Contract
import JSONCodec
import TestSupport
import Testing

@Suite("Command line")
struct CommandLineTests {
    private static let commands: [[String]] = [
        [], ["dev"], ["gateway"], ["worker"], ["simulate"], ["chat"], ["status"], ["top"], ["bench"], ["job"], ["job", "list"],
        ["job", "show"],
        ["job", "tail"],
        ["job", "interrupt"], ["job", "retry"], ["dead"], ["dead", "list"], ["dead", "retry"], ["dead", "purge"], ["worker-drain"],
        ["queue"],
        ["queue", "pause"], ["queue", "resume"], ["config"], ["config", "check"],
    ]

    @Test func `every command has help`() async throws {
        for command in Self.commands {
            let arguments = command + ["--help"]
            let outcome = try await run(arguments)
            #expect(outcome.status == .exited(0), "\(arguments)")
            #expect(outcome.output.contains("USAGE: sluice"), "\(arguments)")
            #expect(outcome.errors.isEmpty)
        }
    }

    @Test(arguments: [
        ["frob"], ["job", "show"], ["job", "list", "--limit", "0"], ["queue", "pause", "frob"], ["dead", "retry"],
        ["dead", "purge", "x", "--all"],
        ["simulate", "--listen", "nowhere"], ["chat", "--url", "nowhere"], ["status", "--frob"], ["top", "--interval", "1ms"],
        ["worker", "--config", "/nowhere/at/all"],
    ])
    func `invalid usage is status 2`(arguments: [String]) async throws {
        let outcome = try await run(arguments)
        #expect(outcome.status == .exited(2))
        #expect(outcome.output.isEmpty)
        #expect(!outcome.errors.isEmpty)
    }

    @Test func `config check prints values on standard output and faults on standard error`() async throws {
        let canary = "canary-5d21-of-sixteen-bytes"
        let good = try await run(
            ["config", "check", "--json"], ["SLUICE_API_KEYS": "t:\(canary)", "SLUICE_UPSTREAM_KEY": canary, "SLUICE_LEASE": "20s"])
        #expect(good.status == .exited(0))
        #expect(good.errors.isEmpty)
        #expect(!good.output.contains(canary))
        let settings = try JSON(parsing: good.output)["settings"]?.array ?? []
        func setting(_ name: String) -> JSON? { settings.first { $0["name"]?.string == name } }
        #expect(setting("SLUICE_LEASE")?["value"] == "20s")
        #expect(setting("SLUICE_LEASE")?["source"] == "environment")
        #expect(setting("SLUICE_RETRIES")?["source"] == "default")
        #expect(setting("SLUICE_UPSTREAM_KEY")?["value"] == "redacted")

        let bad = try await run(["config", "check"], ["SLUICE_LEASE": "x", "SLUICE_NOSUCHTHING": canary, "SLUICE_API_KEYS": canary])
        #expect(bad.status == .exited(2))
        #expect(bad.output.hasPrefix("SETTING"))
        #expect(!bad.errors.contains(canary) && !bad.output.contains(canary))
        let lines = bad.errors.split(separator: "\n")
        #expect(lines.count == 3)
        #expect(lines.contains { $0.hasPrefix("SLUICE_LEASE (environment): ") })
        #expect(lines.contains { $0.hasPrefix("SLUICE_NOSUCHTHING (environment): ") })
    }

    @Test(arguments: [
        ["status"], ["top"], ["job", "list"], ["job", "interrupt", "x"], ["dead", "list"], ["queue", "pause", "batch"],
        ["worker-drain", "w"],
    ])
    func `an unreachable Redis is status 69`(arguments: [String]) async throws {
        let outcome = try await run(arguments, ["SLUICE_REDIS_URL": "redis://u:canary-9@127.0.0.1:1"])
        #expect(outcome.status == .exited(69))
        #expect(outcome.errors.split(separator: "\n").count == 1)
        #expect(outcome.errors.contains("redis://u@127.0.0.1:1"))
        #expect(!outcome.errors.contains("canary-9"))
    }

    @Test func `an unreachable gateway is status 69`() async throws {
        let outcome = try await run(["chat", "--url", "ws://127.0.0.1:1", "hello"])
        #expect(outcome.status == .exited(69))
        #expect(outcome.errors.contains("no gateway answers at ws://127.0.0.1:1"))
    }

    private func run(_ arguments: [String], _ environment: [String: String] = [:]) async throws -> Executable.Outcome {
        try await Executable.run(arguments, environment: environment)
    }
}
