import Contract
import JobQueue
import Observability
import Support

/// A deployment's state as text for `sluice status`.
extension DeploymentSnapshot {
    package var text: String {
        var table = TextTable(header: ["QUEUE", "WAITING", "RUNNING", "OLDEST WAIT", "STATE"])
        for queue in queues {
            table.add([
                queue.priority.rawValue, String(queue.waiting), String(queue.running),
                queue.oldestWaitMilliseconds.map { Quantity.span(milliseconds: $0) } ?? "-", queue.isPaused ? "paused" : "open",
            ])
        }
        let nodes = areNodesKnown ? "\(workerText)\n\(gatewayText)" : "workers, gateways and paused classes are unknown: \(Self.noAnswer)\n"
        return "\(table.text)\(unreadText)\n\(nodes)\ndead letters: \(dead)\n\(webhookText)"
    }

    private static let noAnswer = "their Redis server does not answer"

    private var unreadText: String { unreadPartitions == 0 ? "" : "without \(unreadPartitions) partitions: \(Self.noAnswer)\n" }

    /// The webhooks; empty when there is nothing to report.
    private var webhookText: String {
        guard webhooks != Webhooks() else { return "" }
        var text = "webhooks: \(webhooks.waiting) waiting, \(webhooks.failing) of them failing, \(webhooks.dead) given up\n"
        if let error = webhooks.lastError {
            let ago = Quantity.span(milliseconds: max(0, milliseconds.saturatingSubtracting(error.milliseconds)))
            text += "last failed webhook, \(ago) ago: \(Terminal.printable(error.text))\n"
        }
        return text
    }

    /// The workers, and the latencies of the last minute.
    private var workerText: String {
        guard !workers.isEmpty else { return "no worker is running\n" }
        var table = TextTable(header: ["WORKER", "IN FLIGHT", "CAPACITY", "TOKENS/S", "JOBS/S", "STATE", "VERSION", "UP"])
        for worker in workers {
            let report = worker.report
            table.add([
                worker.name, String(report.inFlight), String(report.capacity), Quantity.rate(report.tokensPerSecond),
                Quantity.rate(report.jobsPerSecond), report.isDraining ? "draining" : "working", report.version,
                uptime(since: report.startedMilliseconds),
            ])
        }
        var latencies = TextTable(header: ["LAST MINUTE", "P50", "P99", "OF"])
        for (name, buckets) in [("queue wait", queueWait), ("first token", firstToken), ("interrupt to closed", interruptClose)] {
            latencies.add([
                name, buckets.quantile(0.5).map { Quantity.span(microseconds: $0) } ?? "-",
                buckets.quantile(0.99).map { Quantity.span(microseconds: $0) } ?? "-", String(buckets.total),
            ])
        }
        return table.text + "\n" + latencies.text
    }

    private var gatewayText: String {
        guard !gateways.isEmpty else { return "no gateway is running\n" }
        var table = TextTable(header: ["GATEWAY", "SOCKETS", "REQUESTS", "STATE", "VERSION", "UP"])
        for gateway in gateways {
            table.add([
                gateway.name, String(gateway.sockets), String(gateway.inFlight),
                gateway.isDraining ? "draining" : "working", gateway.version,
                uptime(since: gateway.startedMilliseconds),
            ])
        }
        return table.text
    }

    /// The time since the start of a node. Not negative, although the node's clock may differ from that of Redis.
    /// - Parameter started: Unix time in milliseconds; 0: unknown.
    func uptime(since started: Int) -> String {
        started == 0 ? "-" : Quantity.span(milliseconds: max(0, milliseconds.saturatingSubtracting(started)))
    }
}
