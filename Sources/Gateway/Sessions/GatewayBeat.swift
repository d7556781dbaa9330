import Contract
import JobQueue
import Logging
import NIOCore
import RedisClient

/// The gateway's sign of life, three times a lease, and with it the look after gateways that died: their sessions with running requests are
/// adopted, their chat completions, whose clients lost their connections, are interrupted.
actor GatewayBeat {
    /// Sessions adopted, and completions interrupted, from one partition of one dead gateway at a beat.
    private static let adoptedAtOnce = 500
    /// Beats in a row that a gateway must be found missing: after an outage of Redis all heartbeats are gone for a moment.
    private static let missingBeats = 2

    private struct Absence {
        var beats = 0
        let since = ContinuousClock.now
    }

    private let node: NIOLoopBound<GatewayNode>
    private let context: GatewayContext
    private let heartbeat: NodeHeartbeat
    private let started = WallClock.milliseconds
    private var missing: [String: Absence] = [:]
    private var hasLookedAtOwn = false

    private var redis: RedisClient { context.queue.redis }
    private var keys: Keys { context.queue.keys }
    private var name: String { context.settings.name }

    init(node: NIOLoopBound<GatewayNode>, context: GatewayContext) {
        self.node = node
        self.context = context
        heartbeat = NodeHeartbeat(.gateway, name: context.settings.name, keys: context.queue.keys, lease: context.settings.lease)
    }

    /// Until the task is cancelled.
    func run() async {
        while !Task.isCancelled {
            do { try await beat() } catch {
                // Said once by the connection; what was seen before the outage no longer counts.
                missing = [:]
            }
            do { try await Task.sleep(for: context.settings.lease / 3) } catch { return }
        }
    }

    private func beat() async throws {
        try await write()
        let node = node
        context.eventLoop.execute { node.value.host.saveUnsaved() }
        await context.submitted.lookAtFull(context.queue)
        if !hasLookedAtOwn {
            // What an earlier process of this name left behind when it died.
            _ = try await adopt(from: name)
            _ = try await interruptCompletions(of: name)
            hasLookedAtOwn = true
        }
        try await lookAfterOthers()
    }

    private func write() async throws {
        let node = node
        let (inFlight, sockets) = try await context.eventLoop.submit { (node.value.host.runningCount, node.value.ledger.count) }.get()
        var pipeline = RedisPipeline()
        heartbeat.append(
            [
                ("capacity", String(context.settings.socketsMaximum)), ("in_flight", String(inFlight)), ("sockets", String(sockets)),
                ("draining", context.readiness.isDraining ? "1" : "0"), ("version", context.settings.version), ("started", String(started)),
            ], to: &pipeline)
        _ = try await redis.send(pipeline)
        _ = try await redis.send("SADD", .string(keys.gateways), .string(name))
    }

    private func lookAfterOthers() async throws {
        let others = try await redis.send("SMEMBERS", .string(keys.gateways)).array?.compactMap(\.string).filter { $0 != name } ?? []
        missing = missing.filter { others.contains($0.key) }
        for other in others {
            guard try await redis.send("EXISTS", .string(keys.gateway(other))).integer == 0 else {
                missing[other] = nil
                continue
            }
            var absence = missing[other] ?? Absence()
            absence.beats += 1
            missing[other] = absence
            guard absence.beats >= Self.missingBeats else { continue }
            var left = try await adopt(from: other)
            // It may only be cut off from Redis, and its clients still there: it gets the time that clients get.
            if absence.since + context.settings.grace <= .now {
                left += try await interruptCompletions(of: other)
            } else {
                left += 1
            }
            if left == 0 {
                _ = try await redis.send("SREM", .string(keys.gateways), .string(other))
                missing[other] = nil
            }
        }
    }

    /// - Returns: how many sessions it had.
    private func adopt(from other: String) async throws -> Int {
        var count = 0
        for partition in 0..<keys.partitions {
            let key = keys.busySessions(of: other, partition: partition)
            let ids = try await redis.send("SRANDMEMBER", .string(key), .integer(Self.adoptedAtOnce)).array?.compactMap(\.string) ?? []
            count += ids.count
            let node = node
            context.eventLoop.execute { for id in ids { node.value.host.adopt(id, from: other) } }
        }
        if count > 0 { context.logger.info("adopting sessions", metadata: ["from": "\(other)", "sessions": "\(count)"]) }
        return count
    }

    /// - Returns: how many it had.
    private func interruptCompletions(of other: String) async throws -> Int {
        var count = 0
        for partition in 0..<keys.partitions {
            let ids = try await context.queue.requests(of: other, partition: partition, atMost: Self.adoptedAtOnce)
                .filter { !context.completions.contains($0) }
            guard !ids.isEmpty else { continue }
            count += ids.count
            context.logger.info("interrupting a dead gateway's completions", metadata: ["from": "\(other)", "completions": "\(ids.count)"])
            // The beat does not wait for it. What fails is found again at the next one.
            context.errands.start { [queue = context.queue] in
                await withDiscardingTaskGroup { tasks in
                    for id in ids {
                        tasks.addTask {
                            let answer = try? await queue.interrupt(id, reason: InterruptReason.clientGone, owner: nil)
                            GatewayMetrics.interrupted(answer)
                            if answer != nil { try? await queue.forgetRequest(id, of: other) }
                        }
                    }
                }
            }
        }
        return count
    }

    /// The gateway ends: its sessions may be adopted at once.
    func leave() async {
        do {
            _ = try await redis.send("DEL", .string(heartbeat.key), timeout: .seconds(1))
        } catch {
            context.logger.debug("heartbeat could not be removed; it will expire", metadata: ["error": "\(error)"])
        }
    }
}
