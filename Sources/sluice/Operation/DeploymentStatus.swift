import Contract
import JobQueue
import Observability
import RedisClient

/// What a deployment does at this moment, as Redis tells it.
struct DeploymentStatus: Sendable {
    struct Queue: Sendable {
        var priority: JobClass
        /// Jobs that nobody works on.
        var waiting = 0
        /// Jobs in workers' hands.
        var running = 0
        /// Entries not yet delivered, as Redis counts them; nil when it cannot.
        var lag: Int? = 0
        var oldestWaitMilliseconds: Int64?
        var isPaused = false
    }

    struct Node: Sendable {
        var name: String
        var fields: [String: String]
    }

    var queues: [Queue]
    var workers: [Node] = []
    var gateways: [Node] = []
    var dead = 0

    static func read(from deployment: Deployment) async throws(RedisError) -> DeploymentStatus {
        var status = DeploymentStatus(queues: JobClass.allCases.map { Queue(priority: $0) })
        let paused = try await deployment.redis.send("SMEMBERS", .string(deployment.keys.paused)).array ?? []
        let pausedNames = Set(paused.compactMap(\.string))
        for index in status.queues.indices { status.queues[index].isPaused = pausedNames.contains(status.queues[index].priority.rawValue) }
        for partition in 0..<deployment.keys.partitions { try await status.add(partition, of: deployment) }
        let prefixes = (worker: deployment.keys.worker(""), gateway: deployment.keys.gateway(""))
        status.workers = try await nodes(prefixes.worker, in: deployment)
        status.gateways = try await nodes(prefixes.gateway, in: deployment)
        return status
    }

    private mutating func add(_ partition: Int, of deployment: Deployment) async throws(RedisError) {
        var pipeline = RedisPipeline()
        for queue in queues {
            let key = deployment.keys.queue(queue.priority, partition: partition)
            pipeline.append("XLEN", .string(key))
            pipeline.append("XINFO", "GROUPS", .string(key))
            pipeline.append("XPENDING", .string(key), .string(Keys.group))
        }
        pipeline.append("XLEN", .string(deployment.keys.dead(partition: partition)))
        let replies = try await deployment.redis.send(pipeline)
        let now = Timestamp.now.milliseconds
        for index in queues.indices {
            let length = replies[index * 3].integer ?? 0
            let groups = (replies[index * 3 + 1].array ?? []).map(Deployment.fields)
            let group = groups.first { $0["name"] == Keys.group }
            let running = Self.running(replies[index * 3 + 2])
            queues[index].running += running
            queues[index].waiting += max(0, length - running)
            // Without a group nothing was delivered; a lag that Redis left out (entries were deleted in the middle) is not known.
            if let sum = queues[index].lag, let lag = group == nil ? length : group?["lag"].flatMap({ Int($0) }) {
                queues[index].lag = sum + lag
            } else {
                queues[index].lag = nil
            }
            guard length > running else { continue }
            let after = group?["last-delivered-id"].map { "(\($0)" } ?? "-"
            let key = deployment.keys.queue(queues[index].priority, partition: partition)
            let next = try await deployment.redis.send("XRANGE", .string(key), .string(after), "+", "COUNT", 1)
            if let id = next.array?.first?.array?.first?.string, let submitted = id.split(separator: "-").first.flatMap({ Int64($0) }) {
                queues[index].oldestWaitMilliseconds = max(queues[index].oldestWaitMilliseconds ?? 0, now - submitted, 0)
            }
        }
        dead += replies.last?.integer ?? 0
    }

    /// Pending entries but those that were given back: these wait again.
    private static func running(_ summary: RESPValue) -> Int {
        guard let parts = summary.array, parts.count == 4, let total = parts[0].integer else { return 0 }
        let returned = (parts[3].array ?? []).first { $0.array?.first?.string == JobConsumer.nobody }
        return max(0, total - (returned?.array?.last?.integer ?? 0))
    }

    private static func nodes(_ prefix: String, in deployment: Deployment) async throws(RedisError) -> [Node] {
        var nodes: [Node] = []
        for key in try await deployment.keys(matching: prefix + "*", limit: 10_000).keys {
            let fields = Deployment.fields(try await deployment.redis.send("HGETALL", .string(key)))
            // It may have expired since.
            if !fields.isEmpty { nodes.append(Node(name: String(key.dropFirst(prefix.count)), fields: fields)) }
        }
        return nodes
    }
}

extension DeploymentStatus {
    var json: JSON {
        func nodes(_ nodes: [Node]) -> JSON {
            .array(
                nodes.map { node in
                    var members = JSONObject()
                    members["name"] = .string(node.name)
                    for (name, value) in node.fields.sorted(by: { $0.key < $1.key }) {
                        members[name] =
                            name == "draining"
                            ? .bool(value == "1") : name == "version" ? .string(value) : Int(value).map { .integer($0) } ?? .string(value)
                    }
                    return .object(members)
                })
        }
        return [
            "queues": .array(
                queues.map { queue in
                    [
                        "class": .string(queue.priority.rawValue), "waiting": .integer(queue.waiting), "running": .integer(queue.running),
                        "lag": queue.lag.map { .integer($0) } ?? .null,
                        "oldest_wait_ms": queue.oldestWaitMilliseconds.map { .integer($0) } ?? .null, "paused": .bool(queue.isPaused),
                    ]
                }),
            "workers": nodes(workers), "gateways": nodes(gateways), "dead": .integer(dead),
        ]
    }

    var text: String {
        var table = TextTable(header: ["QUEUE", "WAITING", "RUNNING", "OLDEST WAIT", "STATE"])
        for queue in queues {
            table.add([
                queue.priority.rawValue, String(queue.waiting), String(queue.running), queue.oldestWaitMilliseconds.map(Self.span) ?? "-",
                queue.isPaused ? "paused" : "open",
            ])
        }
        return table.text + "\n" + Self.text(of: workers, "worker", ["in_flight", "capacity"]) + "\n"
            + Self.text(of: gateways, "gateway", ["connections", "requests"])
            + "\ndead letters: \(dead)\n"
    }

    private static func text(of nodes: [Node], _ kind: String, _ wanted: [String]) -> String {
        guard !nodes.isEmpty else { return "no \(kind) is running\n" }
        let columns = wanted.filter { column in nodes.contains { $0.fields[column] != nil } }
        var table = TextTable(
            header: [kind.uppercased()] + columns.map { $0.uppercased().replacing("_", with: " ") } + ["STATE", "VERSION", "UP"])
        for node in nodes {
            let started = node.fields["started"].flatMap { Int64($0) }
            table.add(
                [node.name] + columns.map { node.fields[$0] ?? "-" } + [
                    node.fields["draining"] == "1" ? "draining" : "working", node.fields["version"] ?? "-",
                    started.map { span(max(0, Timestamp.now.milliseconds - $0)) } ?? "-",
                ])
        }
        return table.text
    }

    /// `850ms`, `12.3s`, `4m10s`, `3h05m`, `2d4h`.
    static func span(_ milliseconds: Int64) -> String {
        let seconds = milliseconds / 1_000
        func two(_ number: Int64) -> String { number < 10 ? "0\(number)" : "\(number)" }
        if milliseconds < 1_000 { return "\(milliseconds)ms" }
        if seconds < 60 { return "\(seconds).\(milliseconds % 1_000 / 100)s" }
        if seconds < 3_600 { return "\(seconds / 60)m\(two(seconds % 60))s" }
        if seconds < 86_400 { return "\(seconds / 3_600)h\(two(seconds / 60 % 60))m" }
        return "\(seconds / 86_400)d\(seconds / 3_600 % 24)h"
    }
}
