import Contract
import RedisClient

/// Renewals of jobs without news, by the lease index alone. The jobs of one script call share a lease, which costs as much as the lease of one
/// job.
extension JobConsumer {
    /// Maximum jobs per call of the script of quiet renewals.
    package static let quietPerCall = 128
    /// Script calls per pipeline.
    private static let quietCallsAtOnce = 2
    /// Shared leases of one queue that a call renews; it replaces more of them by one.
    private static let sharedPerQueue = 2

    /// Divides quiet jobs of one partition, see `LeaseRenewal.isQuiet`, into parts for `renewQuiet`. Jobs that share a lease stay together.
    package static func quietParts(_ renewals: [LeaseRenewal]) -> [[LeaseRenewal]] {
        let calls = quietCalls(renewals)
        return stride(from: 0, to: calls.count, by: quietCallsAtOnce).map { start in
            calls[start..<min(start + quietCallsAtOnce, calls.count)].flatMap { $0.flatMap { $0 } }.map { renewals[$0] }
        }
    }

    /// Renews the leases of one part of the quiet jobs of a partition, see `quietParts`, with a few commands for all of them together. Safe to
    /// repeat.
    /// - Parameter claimsEntries: as for `validate`; also notices records that were deleted.
    /// - Returns: in the order of `renewals`; nil for a job that `validate` must renew: it has changed or may have.
    package func renewQuiet(_ renewals: [LeaseRenewal], claimsEntries: Bool) async throws(QueueError) -> [LeaseReport?] {
        guard let partition = renewals.first?.entry.partition else { return [] }
        let queues = keys.queues(partition: partition)
        let calls = Self.quietCalls(renewals).map { (groups: $0, arguments: quietArguments($0, renewals, claimsEntries: claimsEntries)) }
        var pipeline = redis.makePipeline()
        for call in calls { pipeline.append(Scripts.renewQuiet, keys: queues, arguments: call.arguments) }
        pipeline.append(["EXISTS"] + renewals.map { .string(keys.interrupt($0.id)) })
        if claimsEntries { pipeline.append(["EXISTS"] + renewals.map { .string(keys.record($0.id)) }) }
        let replies = try await redis.send(pipeline)
        guard replies.count == calls.count + (claimsEntries ? 2 : 1) else { throw redis.misfit(.array(replies), to: "a pipeline") }
        var reports: [LeaseReport?] = renewals.map { _ in nil }
        for (call, first) in zip(calls, replies) {
            var reply = first
            if reply.isScriptMissing { reply = try await redis.run(Scripts.renewQuiet, keys: queues, arguments: call.arguments) }
            guard let parts = try reply.orThrow().array, parts.count == 2, let scores = parts[0].array, scores.count == call.groups.count,
                let doubtful = parts[1].array
            else { throw redis.misfit(reply, to: "the script of quiet renewals") }
            for (group, score) in zip(call.groups, scores) {
                guard let score = score.string, Double(score) != nil else { throw redis.misfit(reply, to: "the script of quiet renewals") }
                for index in group { reports[index] = LeaseReport(answer: .kept, leaseScore: score) }
            }
            let jobs = call.groups.flatMap { $0 }
            for number in doubtful {
                guard let number = number.integer, (1...jobs.count).contains(number) else {
                    throw redis.misfit(reply, to: "the script of quiet renewals")
                }
                reports[jobs[number - 1]] = nil
            }
        }
        // An interrupted job or one without a record is rare, so all jobs are looked at again then.
        guard replies[calls.count].integer == 0, !claimsEntries || replies[calls.count + 1].integer == renewals.count else {
            return renewals.map { _ in nil }
        }
        return reports
    }

    /// The script calls that renew some jobs: for each call its groups of jobs of one queue with the same score, by their indices in `renewals`.
    /// All jobs that share a lease are in one group.
    private static func quietCalls(_ renewals: [LeaseRenewal]) -> [[ArraySlice<Int>]] {
        let groups = Dictionary(grouping: renewals.indices) { Lease(renewals[$0]) }.sorted { $0.key < $1.key }
        var calls: [[ArraySlice<Int>]] = []
        // Jobs for which the last call has room.
        var room = 0
        for (lease, members) in groups {
            var rest = members[...]
            while !rest.isEmpty {
                if room == 0 || lease.isShared && rest.count > room {
                    calls.append([])
                    room = quietPerCall
                }
                let part = rest.prefix(room)
                calls[calls.count - 1].append(part)
                room -= part.count
                rest = rest.dropFirst(part.count)
            }
        }
        return calls
    }

    private func quietArguments(_ groups: [ArraySlice<Int>], _ renewals: [LeaseRenewal], claimsEntries: Bool) -> [RedisArgument] {
        var arguments: [RedisArgument] = [
            .string(Keys.group), .string(worker), .integer(settings.leaseMilliseconds), .integer(claimsEntries ? 1 : 0),
            .integer(Self.sharedPerQueue),
        ]
        let leases = groups.compactMap { $0.first.map { Lease(renewals[$0]) } }
        for (group, lease) in zip(groups, leases) {
            let shared = leases.count { $0.isShared && $0.queue == lease.queue }
            let ids = claimsEntries || !lease.isShared || shared > Self.sharedPerQueue ? group.map { renewals[$0].entry.id } : []
            arguments += [.integer(lease.queue + 1), .string(lease.score), .integer(group.count), .integer(ids.count)]
            arguments += ids.map { .string($0) }
        }
        return arguments
    }
}

/// What the jobs of a group have in common.
private struct Lease: Hashable, Comparable {
    /// The position of the queue among those of a partition.
    let queue: Int
    let score: String

    init(_ renewal: LeaseRenewal) {
        queue = renewal.entry.priority.order
        score = renewal.leaseScore ?? ""
    }

    /// Whether it is one lease that the jobs share, by the first number of shared leases in `shared.lua`. The scores of other leases are times
    /// in ms, which are smaller.
    var isShared: Bool { Double(score).map { $0 >= 1e13 } ?? false }

    static func < (one: Lease, other: Lease) -> Bool { (one.queue, one.score) < (other.queue, other.score) }
}
