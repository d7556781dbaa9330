import Contract
import RedisClient
import Support

/// A limit that holds over all workers, of an upstream or a tenant. Values are at least 1; nil: no limit.
package struct SharedLimit: Sendable, Hashable {
    package enum Kind: String, Sendable { case upstream, tenant }

    package let kind: Kind
    /// The name of the upstream or the tenant.
    package let name: String
    /// Requests, or running jobs of a tenant, at a time.
    package var concurrency: Int?
    package var requestsPerMinute: Int?
    package var tokensPerMinute: Int?

    package init(_ kind: Kind, _ name: String, concurrency: Int? = nil, requestsPerMinute: Int? = nil, tokensPerMinute: Int? = nil) {
        self.kind = kind
        self.name = name
        self.concurrency = concurrency
        self.requestsPerMinute = requestsPerMinute
        self.tokensPerMinute = tokensPerMinute
    }

    /// Whether there is anything to limit.
    package var isEffective: Bool { concurrency != nil || requestsPerMinute != nil || tokensPerMinute != nil }

    /// Whether both limit the same upstream or tenant, possibly to other values.
    package func isSame(as other: SharedLimit) -> Bool { kind == other.kind && name == other.name }
}

/// A place under a limit, or in the line of those that wait for one.
package struct LimitHolder: Sendable, Hashable {
    /// Unique among all holders of all workers.
    package let id: String
    /// Whether it was admitted.
    package let isAdmitted: Bool
    /// Reserved tokens.
    package let tokens: Int

    package init(id: String, isAdmitted: Bool, tokens: Int) {
        self.id = id
        self.isAdmitted = isAdmitted
        self.tokens = tokens
    }
}

/// Limits over all workers. A holder's place and its reservation are given back with its lease if its worker does not renew them.
extension JobConsumer {
    /// The state of holders after a call.
    package struct LimitState: Sendable, Equatable {
        /// Time after which the holder that waits longest can be admitted if nothing is released before; nil when unknown.
        package var wait: Duration?
        /// For each holder given, whether it was admitted.
        package var areAdmitted: [Bool]
    }

    /// Reserves a place and tokens, or waits in line for them. A repeated call does not change the place in the line. Holders of this worker that are
    /// admitted later, or become the next ones, are announced by the signal `limitChanged`.
    package func acquire(_ limit: SharedLimit, holder: String, tokens: Int) async throws(QueueError) -> LimitState {
        try await run("acquire", limit, [.string(holder), .integer(tokens)], holders: 1)
    }

    /// Gives up a place under the limit or in the line.
    /// - Parameter used: tokens used; more or fewer than were reserved. Nil: as many.
    package func release(_ limit: SharedLimit, holder: String, used: Int?) async throws(QueueError) -> LimitState {
        try await run("release", limit, [.string(holder), .string(used.map { String($0) } ?? "")], holders: 0)
    }

    /// Renews the leases of this worker's holders, also of those that Redis has lost.
    package func renew(_ limit: SharedLimit, holders: [LimitHolder]) async throws(QueueError) -> LimitState {
        try await run(
            "renew", limit, holders.flatMap { [.string($0.id), .integer($0.isAdmitted ? 1 : 0), .integer($0.tokens)] },
            holders: holders.count)
    }

    private func run(
        _ operation: String, _ limit: SharedLimit, _ arguments: [RedisArgument], holders: Int
    ) async throws(QueueError) -> LimitState {
        let reply = try await redis.run(
            Scripts.limit, keys: [keys.limit(limit.kind.rawValue, limit.name)],
            arguments: [
                .string(operation), .string(worker), .integer(settings.leaseMilliseconds), .integer(limit.concurrency ?? 0),
                .integer(limit.requestsPerMinute ?? 0), .integer(limit.tokensPerMinute ?? 0), .string(keys.limitChanged(of: "")),
            ] + arguments)
        guard let values = reply.array?.map(\.integer), values.count == holders + 1, let wait = values[0] else {
            throw redis.misfit(reply, to: "the limit script")
        }
        return LimitState(
            wait: wait < 0 ? nil : .milliseconds(wait.boundedCount), areAdmitted: values.dropFirst().map { $0 == 1 })
    }
}
