import Contract
import JSONCodec
import RedisClient
import Support

/// The usage of one tenant and model on one day, over all partitions.
package struct UsageRow: Sendable, Equatable {
    package var tenant: String
    /// Days since 1970, UTC.
    package var day: Int
    package var model: String
    package var jobs = 0
    package var interrupted = 0
    /// Reported by upstreams.
    package var promptTokens = 0
    package var completionTokens = 0
    package var estimatedPromptTokens = 0
    package var estimatedCompletionTokens = 0
    /// Tokens that interrupted jobs had asked for and did not generate.
    package var savedTokens = 0

    package init(tenant: String, day: Int, model: String) {
        self.tenant = tenant
        self.day = day
        self.model = model
    }

    /// All tokens.
    package var tokens: Int {
        [promptTokens, completionTokens, estimatedPromptTokens, estimatedCompletionTokens].reduce(0) { $0.saturatingAdding($1) }
    }

    /// Adds the numbers that the scripts keep.
    mutating func add(_ text: String) {
        let paths: [WritableKeyPath<UsageRow, Int>] = [
            \.jobs, \.interrupted, \.promptTokens, \.completionTokens, \.estimatedPromptTokens, \.estimatedCompletionTokens, \.savedTokens,
        ]
        for (path, part) in zip(paths, text.split(separator: " ")) {
            self[keyPath: path] = self[keyPath: path].saturatingAdding(Int(part)?.boundedCount ?? 0)
        }
    }

    /// As `GET /v1/usage` and `sluice usage --json` show it.
    package var json: JSON {
        [
            "tenant": .string(tenant), "day": .string(UsageDay.text(day)), "model": .string(model), "jobs": .integer(jobs),
            "interrupted": .integer(interrupted), "prompt_tokens": .integer(promptTokens), "completion_tokens": .integer(completionTokens),
            "estimated_prompt_tokens": .integer(estimatedPromptTokens),
            "estimated_completion_tokens": .integer(estimatedCompletionTokens), "saved_tokens": .integer(savedTokens),
        ]
    }
}

/// Days of the Gregorian calendar, UTC, as numbers of days since 1970.
package enum UsageDay {
    /// Days for which usage is kept.
    package static let kept = 35

    /// The day as YYYY-MM-DD. (Howard Hinnant's `civil_from_days`.)
    package static func text(_ day: Int) -> String {
        let shifted = min(max(day, 0), 2_900_000) + 719_468
        let era = shifted / 146_097
        let dayOfEra = shifted % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        let dayOfMonth = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
        let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        func padded(_ number: Int, _ width: Int) -> String {
            let text = String(number)
            return String(repeating: "0", count: max(0, width - text.count)) + text
        }
        return padded(year, 4) + "-" + padded(month, 2) + "-" + padded(dayOfMonth, 2)
    }

    /// The day of a text YYYY-MM-DD from 1970 to 9999; nil for another text.
    package static func parse(_ text: some StringProtocol) -> Int? {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 3, parts[0].count == 4, parts[1].count == 2, parts[2].count == 2,
            let year = Int(parts[0]), let month = Int(parts[1]), let dayOfMonth = Int(parts[2]), (1970...9999).contains(year),
            (1...12).contains(month), (1...31).contains(dayOfMonth)
        else { return nil }
        let shiftedYear = month <= 2 ? year - 1 : year
        let yearOfEra = shiftedYear % 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + dayOfMonth - 1
        let day = shiftedYear / 400 * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
        return Self.text(day) == text ? day : nil
    }
}

extension JobProducer {
    /// Tenants and days per round trip.
    private static let usageAtOnce = 500

    /// The current day by Redis' clock.
    package func today() async throws(QueueError) -> Int {
        let reply = try await redis.send("TIME", nearKey: keys.nodes)
        guard let seconds = reply.array?.first?.integer, (0...1 << 40).contains(seconds) else { throw redis.misfit(reply, to: "TIME") }
        return seconds / 86_400
    }

    /// Reads the usage of days, by day, tenant and model.
    /// - Parameters:
    ///   - days: at most `UsageDay.kept` of them have data.
    ///   - tenant: nil for all tenants.
    package func usage(of days: ClosedRange<Int>, tenant: String?) async throws(QueueError) -> [UsageRow] {
        var rows: [UsageRow] = []
        for day in days {
            var keysOfTenants: [(tenant: String, key: String)] = []
            for partition in 0..<keys.partitions {
                var tenants = tenant.map { [$0] } ?? []
                if tenant == nil {
                    let reply = try await redis.send("HKEYS", .string(keys.usage(day: day, partition: partition)))
                    tenants = (reply.array ?? []).compactMap(\.string)
                }
                keysOfTenants += tenants.map { ($0, keys.usage(day: day, of: $0, partition: partition)) }
            }
            rows += try await usage(day, keysOfTenants)
        }
        return rows
    }

    private func usage(_ day: Int, _ found: [(tenant: String, key: String)]) async throws(QueueError) -> [UsageRow] {
        var rows: [String: [String: UsageRow]] = [:]
        for start in stride(from: 0, to: found.count, by: Self.usageAtOnce) {
            let some = found[start..<min(start + Self.usageAtOnce, found.count)]
            var pipeline = RedisPipeline()
            for place in some { pipeline.append("HGETALL", .string(place.key)) }
            for (place, reply) in zip(some, try await redis.send(pipeline)) {
                for (model, numbers) in reply.fields {
                    rows[place.tenant, default: [:]][model, default: UsageRow(tenant: place.tenant, day: day, model: model)].add(numbers)
                }
            }
        }
        return rows.values.flatMap(\.values).sorted { ($0.tenant, $0.model) < ($1.tenant, $1.model) }
    }

    /// Tokens of a tenant on a day, over all partitions but one; without those of a cluster's shards that are not reachable.
    func tokens(of tenant: String, day: Int, except excluded: Int) async throws(QueueError) -> Int {
        var pipeline = RedisPipeline()
        for partition in 0..<keys.partitions where partition != excluded && isReachable(partition: partition) {
            pipeline.append("HGET", .string(keys.usage(day: day, partition: partition)), .string(tenant))
        }
        return try await redis.send(pipeline).reduce(0) { $0.saturatingAdding($1.string.flatMap { Int($0)?.boundedCount } ?? 0) }
    }

    /// Time after which the settings of tenants expire that no node writes again, in seconds.
    private static let tenantsExpirySeconds = 300

    /// Writes the settings of tenants, of which the entry `default` is for all others. To be repeated at least every 300 s, after which they expire.
    package func publish(_ tenants: [String: TenantLimits]) async throws(QueueError) {
        let sorted = tenants.sorted { $0.key < $1.key }
        // Identifies the whole, so that an unchanged one is not written again.
        var digest: UInt64 = 14_695_981_039_346_656_037
        for byte in sorted.map({ $0.key + "\n" + $0.value.text + "\n" }).joined().utf8 {
            digest = (digest ^ UInt64(byte)) &* 1_099_511_628_211
        }
        var arguments: [RedisArgument] = [.string(String(digest)), .integer(Self.tenantsExpirySeconds)]
        for (name, limits) in sorted { arguments += [.string(name), .string(limits.text)] }
        // The others are written when their shard is reachable again.
        for partition in 0..<keys.partitions where isReachable(partition: partition) {
            _ = try await redis.run(Scripts.tenants, keys: [keys.tenants(partition: partition)], arguments: arguments)
        }
    }
}
