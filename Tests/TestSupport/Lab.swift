import Contract
import Foundation
import JSONCodec
import Synchronization
import Testing

/// A deployment of real processes on free ports in a temporary folder: Redis, the simulator, gateways and workers.
///
/// At its end it checks for problems: nodes that ended unexpectedly or did not end, left-over processes, upstream requests that are still
/// running, keys or prompts in a log.
package final class Lab: Sendable {
    package let redis: PrivateRedis
    package let folder: TemporaryFolder
    /// The lease of all nodes by default. Nodes renew it every third of it, so a pause of a busy machine of a few seconds loses no job.
    package static let lease = Duration.seconds(8)

    /// A mark in every process's environment, by which left-over processes are found.
    private let mark = "lab-\(UUID().uuidString)"
    private let state = Mutex(State())

    private struct State {
        var nodes: [Node] = []
        var simulator: Node?
        var clients: [WebSocketClient] = []
        var proxies: [FaultProxy] = []
        var models = 0
    }

    /// Texts that must not occur in a log.
    package let key = "sk-canary-client-\(UInt64.random(in: .min ... .max))"
    package let otherKey = "sk-canary-other-\(UInt64.random(in: .min ... .max))"
    package let upstreamKey = "sk-canary-upstream-\(UInt64.random(in: .min ... .max))"
    package let prompt = "canary prompt \(UInt64.random(in: .min ... .max))"

    fileprivate init(redis: PrivateRedis) throws {
        self.redis = redis
        folder = try TemporaryFolder("lab")
    }

    package var nodes: [Node] { state.withLock { $0.nodes } }

    package var simulator: Node {
        guard let node = state.withLock({ $0.simulator }) else { preconditionFailure("this lab has no simulator") }
        return node
    }

    /// The requests that the simulator has received.
    package func upstream(since: Int = 0) async throws -> SimulatorRequests {
        try await SimulatorRequests(port: simulator.port, since: since)
    }
    package var upstreamURL: String { "http://127.0.0.1:\(simulator.port)/v1" }

    /// The simulator's model with a unique suffix that identifies its request.
    package func model(_ script: String) -> String {
        state.withLock { state in
            state.models += 1
            return "\(script)-u\(state.models)"
        }
    }

    // MARK: nodes

    private func environment(_ extra: [String: String?]) -> [String: String] {
        var environment = Executable.environment
        environment["TEST_LAB"] = mark
        environment["SLUICE_REDIS_URL"] = redis.url
        environment["SLUICE_LEASE"] = "\(Self.lease.components.seconds)s"
        environment["SLUICE_DRAIN_TIMEOUT"] = "15s"
        environment["SLUICE_DRAIN_NOTICE"] = "0s"
        environment["SLUICE_LOG_LEVEL"] = "info"
        for (name, value) in extra { environment[name] = value }
        return environment
    }

    private func add(_ name: String, _ arguments: [String], port: Int, _ environment: [String: String]) throws -> Node {
        let node = Node(name: name, arguments: arguments, environment: environment, port: port, logPath: folder.file("\(name).log"))
        state.withLock { $0.nodes.append(node) }
        try node.start()
        return node
    }

    @discardableResult
    package func startSimulator() async throws -> Node {
        let port = Ports.free()
        let node = try add("simulator", ["simulate", "--listen", "127.0.0.1:\(port)"], port: port, environment([:]))
        state.withLock { $0.simulator = node }
        try await node.ready(path: "/sim/requests")
        return node
    }

    /// Starts a gateway. A nil value removes a setting.
    package func gateway(_ name: String = "g1", _ extra: [String: String?] = [:], ready: Bool = true) async throws -> Node {
        let port = Ports.free()
        let own: [String: String?] = [
            "SLUICE_LISTEN": "127.0.0.1:\(port)", "SLUICE_GRACE": "10s", "SLUICE_API_KEYS": "tenant-a:\(key),tenant-b:\(otherKey)",
        ]
        let node = try add(name, ["gateway"], port: port, environment(own.merging(extra) { $1 }))
        if ready { try await node.ready() }
        return node
    }

    package func worker(_ name: String = "w1", _ extra: [String: String?] = [:], ready: Bool = true) async throws -> Node {
        let port = Ports.free()
        let url = state.withLock { $0.simulator }.map { "http://127.0.0.1:\($0.port)/v1" }
        let own: [String: String?] = [
            "SLUICE_METRICS_LISTEN": "127.0.0.1:\(port)", "SLUICE_WORKER_NAME": name, "SLUICE_UPSTREAM_URL": url,
            "SLUICE_UPSTREAM_KEY": upstreamKey,
        ]
        let node = try add(name, ["worker"], port: port, environment(own.merging(extra) { $1 }))
        if ready { try await node.ready() }
        return node
    }

    /// Starts another long-running command of the executable, such as `sluice dev`.
    package func command(_ name: String, _ arguments: [String], port: Int, _ extra: [String: String?] = [:]) throws -> Node {
        try add(name, arguments, port: port, environment(extra))
    }

    package func workers(_ count: Int, _ extra: [String: String?] = [:]) async throws -> [Node] {
        var nodes: [Node] = []
        for number in 1...count { nodes.append(try await worker("w\(number)", extra, ready: false)) }
        for node in nodes { try await node.ready() }
        return nodes
    }

    /// Starts a proxy in front of `port`; it is closed with the lab.
    package func proxy(to port: Int, seed: UInt64 = 1) async throws -> FaultProxy {
        let proxy = try await FaultProxy.start(to: port, seed: seed)
        state.withLock { $0.proxies.append(proxy) }
        return proxy
    }

    /// Connects a client and, by default, registers it; it is closed with the lab.
    package func client(_ gateway: Node, key: String? = nil, register: Bool = true, fields: [(String, JSON)] = []) async throws
        -> WebSocketClient
    {
        let client = try await WebSocketClient.connect(port: gateway.port)
        state.withLock { $0.clients.append(client) }
        if register { try await client.register(key: key ?? self.key, fields: fields) }
        return client
    }

    // MARK: the end

    /// - Parameter failed: whether the test has failed already; then everything is ended without checks.
    fileprivate func end(failed: Bool) async -> [String] {
        var problems: [String] = []
        let (nodes, clients, proxies, simulator) = state.withLock { ($0.nodes, $0.clients, $0.proxies, $0.simulator) }
        for client in clients {
            problems += client.problems
            await client.close()
        }
        for proxy in proxies { proxy.heal() }
        for node in nodes {
            node.thaw()
            if node.endedUnasked { problems.append("\(node.name) ended by itself: …\(node.log.suffix(1_500))") }
        }
        let serving = nodes.filter { $0 !== simulator && $0.isRunning }
        if !failed, let simulator, simulator.isRunning, !serving.isEmpty {
            do {
                try await until("no request to run upstream any more") { try await upstream().running == 0 }
            } catch { problems.append("\(error)") }
        }
        for node in serving { node.terminate() }
        for node in serving where !failed {
            do { _ = try await node.ended() } catch { problems.append("\(error)") }
        }
        for node in nodes { await node.destroy() }
        for proxy in proxies { await proxy.close() }
        await redis.remove()
        problems += leftovers()
        for node in nodes { problems += faults(in: node) }
        return problems
    }

    /// All processes with the lab's mark, including grandchildren, with their command lines.
    package func processes() -> [pid_t: String] {
        let needle = Data("TEST_LAB=\(mark)".utf8)
        var found: [pid_t: String] = [:]
        for entry in (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? [] {
            guard let process = pid_t(entry), let environment = FileManager.default.contents(atPath: "/proc/\(entry)/environ"),
                environment.range(of: needle) != nil
            else { continue }
            let command = FileManager.default.contents(atPath: "/proc/\(entry)/cmdline").map { String(decoding: $0, as: UTF8.self) } ?? ""
            found[process] = command.replacing("\0", with: " ")
        }
        return found
    }

    /// Reports and ends left-over processes.
    private func leftovers() -> [String] {
        processes().map { process, command in
            kill(process, SIGKILL)
            return "a process is left over: \(process) \(command.prefix(200))"
        }
    }

    private func faults(in node: Node) -> [String] {
        let log = node.log
        var problems: [String] = []
        for word in [
            "Fatal error", "Precondition failed", "CONTINUATION MISUSE", "leaked its continuation", "Segmentation fault", "*** Signal",
            // NIO reports this when a callback is scheduled on an event loop that has been shut down.
            "Cannot schedule tasks on an EventLoop",
        ] {
            if let range = log.range(of: word) { problems.append("\(node.name) logged a crash: \(log[range.lowerBound...].prefix(500))") }
        }
        for secret in [key, otherKey, upstreamKey, prompt] where log.contains(secret) {
            problems.append("\(node.name) logged a secret (\(secret.prefix(16))…)")
        }
        return problems
    }

    fileprivate var tails: String {
        nodes.map { "----- \($0.name) (\($0.isRunning ? "running" : "ended"))\n\($0.log.suffix(2_500))" }.joined(separator: "\n")
    }
}

/// Runs `body` in a lab with Redis and, by default, the simulator. Afterwards ends everything and records an issue for each problem
/// found.
package func withLab<Value: Sendable>(
    simulator: Bool = true, redis options: PrivateRedis.Options = PrivateRedis.Options(), redisRuns: Bool = true,
    isolation: isolated (any Actor)? = #isolation, _ body: (Lab) async throws -> Value
) async throws -> Value {
    let lab = try await Lab(redis: redisRuns ? PrivateRedis.start(options) : PrivateRedis.stopped(options))
    do {
        if simulator { try await lab.startSimulator() }
        let value = try await body(lab)
        for problem in await lab.end(failed: false) { Issue.record("after the test: \(problem)") }
        lab.folder.remove()
        return value
    } catch {
        let tails = lab.tails
        let problems = await lab.end(failed: true)
        lab.folder.remove()
        Issue.record("the nodes' logs:\n\(tails)\n\(problems.joined(separator: "\n"))")
        throw error
    }
}
