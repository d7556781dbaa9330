import Foundation
import Synchronization

/// A private primary with replicas and sentinels, on free ports. They end with this process.
package final class PrivateSentinels: Sendable {
    package struct Options: Sendable {
        package var replicas = 2
        package var sentinels = 3
        /// `requirepass` of the servers.
        package var password: String?
        /// `requirepass` of the sentinels.
        package var sentinelPassword: String?
        package init() {}
    }

    package static let service = "main-1"
    /// The server at index 0 is the primary at the beginning.
    package let servers: [PrivateRedis]
    package let ports: [Int]
    private let options: Options
    private let folder: TemporaryFolder
    private let children = Mutex<[ChildProcess]>([])

    /// The URL with all sentinels.
    package var url: String {
        let addresses = ports.map { "127.0.0.1:\($0)" }.joined(separator: ",")
        return "redis+sentinel://\(options.password.map { ":\($0)@" } ?? "")\(addresses)/\(Self.service)"
    }

    private init(_ options: Options) throws {
        self.options = options
        folder = try TemporaryFolder("sentinel")
        let first = try PrivateRedis.stopped(Self.server(options, primary: nil))
        servers = try [first] + (0..<options.replicas).map { _ in try PrivateRedis.stopped(Self.server(options, primary: first.port)) }
        ports = (0..<options.sentinels).map { _ in Ports.free() }
    }

    private static func server(_ options: Options, primary: Int?) -> PrivateRedis.Options {
        // Replication begins at once and without files.
        var arguments = ["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--repl-diskless-load", "swapdb"]
        if let password = options.password { arguments += ["--masterauth", password] }
        if let primary { arguments += ["--replicaof", "127.0.0.1", "\(primary)"] }
        return PrivateRedis.Options(arguments: arguments, password: options.password)
    }

    /// Starts all and waits until the sentinels know each other and all replicas.
    fileprivate static func start(_ options: Options) async throws -> PrivateSentinels {
        let group = try PrivateSentinels(options)
        do {
            for server in group.servers { try await server.start() }
            try await until("the replicas to be connected") {
                try await group.servers[0].info("replication").contains("connected_slaves:\(options.replicas)\r")
            }
            for index in group.ports.indices { try group.startSentinel(index) }
            for index in group.ports.indices {
                try await until("sentinel \(index) to know the others") {
                    let facts = try await group.facts(of: index)
                    return facts["num-other-sentinels"] == "\(options.sentinels - 1)" && facts["num-slaves"] == "\(options.replicas)"
                        && facts["flags"] == "master"
                }
            }
            return group
        } catch {
            await group.remove()
            throw error
        }
    }

    private func startSentinel(_ index: Int) throws {
        let file = folder.file("sentinel-\(index).conf")
        var lines = [
            "port \(ports[index])", "bind 127.0.0.1", "dir \(folder.path)", "logfile \(folder.file("sentinel-\(index).log"))",
            "sentinel monitor \(Self.service) 127.0.0.1 \(servers[0].port) \(options.sentinels / 2 + 1)",
            "sentinel down-after-milliseconds \(Self.service) 1500", "sentinel failover-timeout \(Self.service) 3000",
            "sentinel parallel-syncs \(Self.service) 4",
        ]
        if let password = options.password { lines.append("sentinel auth-pass \(Self.service) \(password)") }
        if let password = options.sentinelPassword { lines.append("requirepass \(password)") }
        try (lines.joined(separator: "\n") + "\n").write(toFile: file, atomically: true, encoding: .utf8)
        let child = try ChildProcess.spawn(PrivateRedis.executable, [file, "--sentinel"], errors: folder.file("sentinel-\(index).stderr"))
        children.withLock { $0.append(child) }
    }

    /// What a sentinel knows of the service; empty while it does not answer.
    private func facts(of index: Int) async throws -> [String: String] {
        guard let connection = try? await RawRedis.connect(port: ports[index]) else { return [:] }
        if let password = options.sentinelPassword { try await connection.send("AUTH", password) }
        let reply = try await connection.send("SENTINEL", "MASTER", Self.service)
        await connection.close()
        return reply.fields
    }

    /// The server that this sentinel names.
    package func primary(by index: Int = 0) async throws -> PrivateRedis? {
        let port = try await facts(of: index)["port"]
        return servers.first { "\($0.port)" == port }
    }

    /// Waits until a sentinel names a running primary other than `former`.
    package func newPrimary(after former: PrivateRedis, deadline: Duration = .testDeadline) async throws -> PrivateRedis {
        try await until("a new primary", deadline: deadline) { () -> PrivateRedis? in
            for index in ports.indices {
                if let primary = try await primary(by: index), primary !== former, primary.isRunning,
                    try await primary.info("replication").contains("role:master")
                {
                    return primary
                }
            }
            return nil
        }
    }

    /// The running primary that all sentinels name.
    package func agreedPrimary() async throws -> PrivateRedis {
        try await until("the sentinels to agree") { () -> PrivateRedis? in
            var named: [PrivateRedis] = []
            for index in ports.indices { if let primary = try await primary(by: index) { named.append(primary) } }
            guard let first = named.first, named.count == ports.count, named.allSatisfy({ $0 === first }), first.answers,
                try await first.info("replication").contains("role:master")
            else { return nil }
            return first
        }
    }

    /// Waits until the sentinels agree on a primary, which all other servers follow.
    package func waitForReplicas() async throws {
        try await until("all replicas to follow") {
            let primary = try await agreedPrimary()
            for server in servers where server !== primary {
                let state = try await server.info("replication")
                guard state.contains("master_link_status:up"), state.contains("master_port:\(primary.port)\r") else { return false }
            }
            return true
        }
    }

    /// Lets the sentinels promote a replica while the primary runs.
    package func failOver() async throws {
        let former = try await agreedPrimary()
        try await until("a fail-over by the sentinels") {
            let connection = try await RawRedis.connect(port: ports[0])
            if let password = options.sentinelPassword { try await connection.send("AUTH", password) }
            // Refused while another one is in progress.
            _ = try await connection.send("SENTINEL", "FAILOVER", Self.service)
            await connection.close()
            return (try? await newPrimary(after: former, deadline: .seconds(6))) != nil
        }
    }

    package func killSentinel(_ index: Int) async { await children.withLock { $0[index] }.destroy() }
    package func freezeSentinel(_ index: Int) { children.withLock { $0[index] }.freeze() }

    fileprivate func remove() async {
        for child in children.withLock({ $0 }) { await child.destroy() }
        for server in servers { await server.remove() }
        folder.remove()
    }
}

extension PrivateRedis {
    /// Makes this server a replica of another one.
    package func follow(_ primary: PrivateRedis) async throws { try await command("REPLICAOF", "127.0.0.1", "\(primary.port)") }

    /// The text of INFO.
    package func info(_ section: String) async throws -> String { try await command("INFO", section).string ?? "" }
}

/// Runs `body` with a primary, replicas and sentinels, and removes them afterwards, also when `body` throws.
package func withSentinels<Value: Sendable>(
    _ options: PrivateSentinels.Options = PrivateSentinels.Options(), isolation: isolated (any Actor)? = #isolation,
    _ body: (PrivateSentinels) async throws -> Value
) async throws -> Value {
    let group = try await PrivateSentinels.start(options)
    do {
        let value = try await body(group)
        await group.remove()
        return value
    } catch {
        await group.remove()
        throw error
    }
}
