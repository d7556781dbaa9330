import ArgumentParser
import Contract
import JSONCodec
import JobQueue
import OperatorTools

/// `sluice config`.
struct ConfigCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Inspect the settings.", subcommands: [ConfigCheckCommand.self])
}

/// `sluice config check`.
struct ConfigCheckCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Print every setting with its value and source, and report invalid settings.",
        discussion: """
            Settings go to standard output with secrets redacted. Faults go to standard error, one per line; then the exit status is 2. \
            An unknown name with the prefix SLUICE_ is a fault. With --node, the settings that this node requires are checked too. With \
            --connect, so are the Redis servers: versions, topology, eviction policy and the rights of the user.
            """)

    enum Node: String, ExpressibleByArgument, CaseIterable {
        case gateway, worker
    }

    @OptionGroup var settings: SettingsOptions
    @OptionGroup var output: JSONOption
    @Option(name: .long, help: "Check the settings of one kind of node.")
    var node: Node?
    @Flag(name: .long, help: "Also print the description and the valid values of each setting.")
    var verbose = false
    @Flag(name: .long, help: "Also connect to Redis and check its servers.")
    var connect = false

    func run() async throws {
        let source = settings.source
        var faults = Self.faults(of: source, node: node)
        if connect, faults.isEmpty {
            let replicas = source.value("SLUICE_REDIS_WAIT_REPLICAS").flatMap { Int($0.text) } ?? 0
            faults = try await settings.withQueue { try await $0.queue.checkRedis(waitReplicas: replicas) }.map {
                SettingFault(name: "SLUICE_REDIS_URL", origin: nil, problem: $0.problem, remedy: $0.remedy)
            }
        }
        StandardOutput.write(output.json ? json(source, faults).text + "\n" : table(source))
        guard faults.isEmpty else { throw SettingFaults(faults: faults) }
    }

    /// All faults, including those of names that are no settings.
    /// - Parameter node: also check what this node requires.
    static func faults(of source: SettingsSource, node: Node?) -> [SettingFault] {
        var reader = SettingsReader(source)
        reader.add(source.unknownFaults)
        reader.checkAll()
        _ = reader.deployment()
        _ = reader.logging()
        _ = reader.worker()
        let gateway = reader.gateway()
        switch node {
        case .worker: reader.requireUpstream()
        case .gateway: reader.requireAuthentication(gateway)
        case nil: reader.checkAuthentication(gateway)
        }
        return reader.faults
    }

    /// The settings that the command prints.
    private var shown: [Setting] {
        guard let node else { return SettingTable.all }
        return SettingTable.all.filter { $0.readers.contains(node == .gateway ? .gateway : .worker) }
    }

    /// The settings as text.
    private func table(_ source: SettingsSource) -> String {
        var table = TextTable(header: ["SETTING", "VALUE", "SOURCE"] + (verbose ? ["MEANING"] : []))
        for setting in shown {
            let value = source.value(setting.name)
            table.add(
                [setting.name, value.map { SettingsSource.shown($0.text, of: setting) } ?? "-", value?.origin.description ?? "unset"]
                    + (verbose ? ["\(setting.meaning) (\(setting.kind.expectation))"] : []))
        }
        return table.text
    }

    /// The settings and faults as JSON.
    private func json(_ source: SettingsSource, _ faults: [SettingFault]) -> JSON {
        let settings = shown.map { setting -> JSON in
            let value = source.value(setting.name)
            return [
                "name": .string(setting.name),
                "value": value.map { .string(SettingsSource.shown($0.text, of: setting)) } ?? .null,
                "source": .string(value?.origin.description ?? "unset"),
                "secret": .bool(setting.isSecret),
                "default": setting.defaultText.map(JSON.string) ?? .null,
                "nodes": .array(setting.readers.map(\.rawValue).sorted().map(JSON.string)),
                "expected": .string(setting.kind.expectation),
                "meaning": .string(setting.meaning),
            ]
        }
        return ["settings": .array(settings), "faults": .array(faults.map { .string($0.description) })]
    }
}
