import Contract
import JSONCodec
import Logging
import NIOCore
import NIOPosix
import RedisClient
import TestSupport

@testable import JobQueue

/// Producer and consumer of a queue, with a private redis-server.
struct QueueFixture {
    let redis: PrivateRedis
    let queue: JobProducer
    let consumer: JobConsumer
    let feed: EventFeed
    let keys: Keys

    static func run(
        settings: QueueSettings = .fixture, _ body: @escaping @Sendable (QueueFixture) async throws -> Void
    ) async throws {
        try await withRedis { redis in
            let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
            let url = try RedisURL(redis.url)
            var logger = Logger(label: "test")
            logger.logLevel = .error
            let client = { RedisClient(url: url, settings: .forTests, eventLoop: group.next(), name: $0, logger: logger) }
            let (commands, blocking) = (client("commands"), client("blocking"))
            let subscriber = RedisSubscriber(url: url, settings: .forTests, eventLoop: group.next(), name: "feed", logger: logger)
            let queue = JobProducer(redis: commands, settings: settings)
            let fixture = QueueFixture(
                redis: redis, queue: queue,
                consumer: JobConsumer(redis: commands, blocking: blocking, settings: settings, worker: "w1", token: "t1"),
                feed: EventFeed(queue: queue, subscriber: subscriber, eventLoop: group.next(), logger: logger), keys: settings.keys)
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                tasks.addTask { await commands.run() }
                tasks.addTask { await blocking.run() }
                tasks.addTask { await subscriber.run() }
                defer { tasks.cancelAll() }
                try await fixture.consumer.createGroups()
                try await body(fixture)
            }
            try await group.shutdownGracefully()
        }
    }

    func consumer(_ name: String, token: String) -> JobConsumer {
        JobConsumer(redis: consumer.redis, blocking: consumer.blocking, settings: consumer.settings, worker: name, token: token)
    }

    static func job(_ id: String = "p0-\(ULID(milliseconds: 1))", owner: String? = "tenant-a") -> Job {
        Job(id: JobID(id)!, priority: .standard, request: JSON(dictionaryLiteral: ("model", "m")).object!, owner: owner)
    }

    /// Submits a job, takes its entry and claims it.
    func running(_ job: Job) async throws -> Claim {
        guard try await queue.submit(job, options: SubmitOptions()) == .accepted else { throw FixtureError.notAccepted }
        return try await claimNext()
    }

    /// Follows a job, claims it and writes two texts, which the reader has received then.
    func followed(_ job: Job) async throws -> (claim: Claim, received: Observed<[LoggedEvent]>) {
        let received = Observed<[LoggedEvent]>([])
        _ = await feed.follow(new: job.id) { events in received.update { $0 += events } }
        let claim = try await running(job)
        _ = try await write([.text("a"), .text("b")], of: claim)
        _ = try await received.wait({ "the text, \($0)" }) { $0.count == 3 ? true : nil }
        return (claim, received)
    }

    func claimNext(_ consumer: JobConsumer? = nil) async throws -> Claim {
        let consumer = consumer ?? self.consumer
        guard let entry = try await consumer.take(partition: 0, classes: JobClass.allCases, count: 1).entries.first,
            case .claimed(let claim) = try await consumer.claim(Job(parsing: entry.job ?? []), entry: entry, leaseExpired: false)
        else { throw FixtureError.nothingToClaim }
        return claim
    }

    enum FixtureError: Error { case nothingToClaim, notAccepted }

    func write(_ events: [GenerationEvent], of claim: Claim, from sequence: Int = 1) async throws -> [RESPValue] {
        var pipeline = RedisPipeline()
        let logged = events.enumerated().map {
            LoggedEvent(id: EventID(attempt: claim.attempt, sequence: sequence + $0.offset), event: $0.element)
        }
        _ = OutputCommands(claim.job.id, entry: claim.entry, keys: keys).append(logged.map { ($0.id, $0.json) }, to: &pipeline)
        return try await consumer.redis.send(pipeline)
    }

    func finish(_ claim: Claim, _ event: GenerationEvent, at sequence: Int) async throws -> RESPValue {
        var pipeline = RedisPipeline()
        let id = EventID(attempt: claim.attempt, sequence: sequence)
        let ending = OutputCommands.Ending(
            event: LoggedEvent(id: id, event: event), previous: EventID(attempt: claim.attempt, sequence: sequence - 1),
            progress: JobProgress())
        OutputCommands(claim.job.id, entry: claim.entry, keys: keys).append(
            ending, entry: claim.entry, settings: consumer.settings, loaded: false, to: &pipeline)
        return try await consumer.redis.send(pipeline)[0]
    }
}

extension QueueSettings {
    /// The defaults with a lease that does not expire while a busy machine runs a test.
    static var fixture: QueueSettings {
        var settings = QueueSettings()
        settings.lease = .seconds(120)
        return settings
    }
}
