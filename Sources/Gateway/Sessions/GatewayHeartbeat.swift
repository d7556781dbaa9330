import Contract
import JobQueue
import Logging
import NIOCore
import Support

/// Writes this gateway's heartbeat every third of a lease, and takes over from dead gateways: adopts their sessions with running requests
/// and interrupts their chat completions, whose clients lost their connection.
actor GatewayHeartbeat {
    /// Maximum sessions adopted, and completions interrupted, per heartbeat from one partition of one dead gateway.
    private static let batchSize = 500
    /// Maximum interval before the next heartbeat after a failed one, so that other gateways see this one soon after an outage.
    private static let retryInterval = Duration.seconds(1)

    private let gateway: NIOLoopBound<GatewayState>
    private let context: GatewayContext
    private let registration: GatewayRegistration
    private let started = WallClock.milliseconds
    /// Gateways whose heartbeat key is absent.
    private var absences: GatewayAbsences
    /// Whether the sessions and completions of an earlier process with this name were recovered.
    private var hasRecoveredOwn = false

    private var name: String { context.settings.name }

    init(gateway: NIOLoopBound<GatewayState>, context: GatewayContext) {
        self.gateway = gateway
        self.context = context
        absences = GatewayAbsences(lease: context.settings.lease)
        registration = GatewayRegistration(name: context.settings.name, queue: context.queue, lease: context.settings.lease)
    }

    /// Runs until the task is cancelled.
    func run() async {
        while !Task.isCancelled {
            var interval = context.settings.lease / 3
            do { try await beat() } catch {
                // The Redis connection logs the error. Absences counted before an outage are not reliable after it.
                absences.reset()
                interval = min(interval, Self.retryInterval)
            }
            do { try await Task.sleep(for: interval) } catch { return }
        }
    }

    /// - Throws: `QueueError`, or an error of the event loop while it shuts down.
    private func beat() async throws {
        let gateway = gateway
        let load = try await context.eventLoop.submit { [started] in gateway.value.load(since: started) }.get()
        do throws(QueueError) {
            let rejection = try await registration.renew(load)
            context.readiness.writes.record(rejection)
            if let rejection { throw rejection }
        } catch {
            context.readiness.writes.record(error)
            throw error
        }
        context.eventLoop.execute { gateway.value.registry.saveUnsaved() }
        await context.submitted.removeEnded(context.queue)
        if !hasRecoveredOwn {
            // An earlier process with the same name may have died with running requests.
            let isComplete = reachable.count == context.queue.partitions
            _ = try await adopt(from: name)
            _ = try await interruptCompletions(of: name)
            hasRecoveredOwn = isComplete
        }
        try await recoverFromDeadGateways()
    }

    /// The partitions whose Redis servers are reachable. The others are looked at later, so that they delay no heartbeat.
    private var reachable: [Int] { (0..<context.queue.partitions).filter { context.queue.isReachable(partition: $0) } }

    /// Recovers the sessions and completions of dead gateways.
    private func recoverFromDeadGateways() async throws {
        let others = try await registration.others()
        absences.beginRound(of: others, connection: registration.connections, now: .now)
        for other in others {
            guard try await !registration.isAlive(other) else {
                absences.end(other)
                continue
            }
            guard let absence = absences.observe(other, now: .now) else { continue }
            var left = try await adopt(from: other)
            // The gateway may only be disconnected from Redis and still serve its clients, so it gets the grace period to come back.
            if absence >= context.settings.grace {
                left += try await interruptCompletions(of: other)
            } else {
                left += 1
            }
            if left == 0, reachable.count == context.queue.partitions {
                try await registration.remove(other)
                absences.end(other)
            }
        }
    }

    /// Adopts the sessions with running requests of another gateway, or of an earlier process with this name.
    /// - Returns: the number of sessions found.
    private func adopt(from other: String) async throws -> Int {
        var count = 0
        let gateway = gateway
        for partition in reachable {
            let ids = try await registration.busySessions(of: other, partition: partition, atMost: Self.batchSize)
            count += ids.count
            context.eventLoop.execute { for id in ids { gateway.value.registry.adopt(id, from: other) } }
        }
        if count > 0 { context.logger.info("adopting sessions", metadata: ["from": "\(other)", "sessions": "\(count)"]) }
        return count
    }

    /// Interrupts the chat completions of another gateway in the background.
    /// - Returns: the number of completions found.
    private func interruptCompletions(of other: String) async throws -> Int {
        var count = 0
        for partition in reachable {
            let ids = try await context.queue.requests(of: other, partition: partition, atMost: Self.batchSize)
                .filter { !context.completions.contains($0) }
            guard !ids.isEmpty else { continue }
            count += ids.count
            context.logger.info("interrupting a dead gateway's completions", metadata: ["from": "\(other)", "completions": "\(ids.count)"])
            // In the background, so that the heartbeat is not delayed. Failed interrupts are retried at the next heartbeat.
            context.backgroundTasks.start { [queue = context.queue] in
                await withDiscardingTaskGroup { tasks in
                    for id in ids {
                        tasks.addTask {
                            let answer = try? await queue.forceInterrupt(id, reason: InterruptReason.clientGone)
                            GatewayMetrics.interrupted(answer)
                            if answer != nil { try? await queue.forgetRequest(id, of: other) }
                        }
                    }
                }
            }
        }
        return count
    }

    /// Deletes the heartbeat key at shutdown, so that other gateways may adopt the sessions immediately.
    func leave() async {
        do {
            try await registration.leave()
        } catch {
            context.logger.debug("failed to delete the heartbeat; it expires by itself", metadata: ["error": "\(error)"])
        }
    }
}

extension GatewayState {
    /// What the heartbeat says about this gateway.
    /// - Parameter started: start of the process, in milliseconds since 1970.
    fileprivate func load(since started: Int) -> DeploymentSnapshot.Gateway {
        var load = DeploymentSnapshot.Gateway(name: context.settings.name)
        load.capacity = context.settings.socketsMaximum
        load.inFlight = registry.runningCount
        load.sockets = ledger.count
        load.isDraining = context.readiness.isDraining
        load.version = context.settings.version
        load.startedMilliseconds = started
        return load
    }
}
