import Contract
import Hummingbird
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import RedisClient
import TestSupport

@testable import Gateway
@testable import JobQueue

/// A test fixture: the router behind a real server, with the suite's Redis. The test acts as the worker.
struct HTTPLab: Sendable {
    let port: Int
    let queue: JobProducer
    let readiness: Readiness
    let blocking: RedisClient
    let namespace: String
    let shares: HTTPShares

    func get(_ path: String, key: String? = "tenant-a-test-key", headers: [String: String] = [:]) async throws -> HTTPAnswer {
        try await HTTPCall.get(port, path, headers: Self.headers(key, headers))
    }

    func post(_ path: String, _ body: String, key: String? = "tenant-a-test-key", headers: [String: String] = [:]) async throws
        -> HTTPAnswer
    {
        try await HTTPCall.send(.POST, port, path, headers: Self.headers(key, headers), body: body)
    }

    private static func headers(_ key: String?, _ others: [String: String]) -> [String: String] {
        guard let key else { return others }
        return others.merging(["authorization": "Bearer \(key)"]) { old, _ in old }
    }

    /// Claims the next waiting job.
    func claim() async throws -> PlayedJob { try await PlayedJob.claimed(from: queue, blocking: blocking) }
}

/// A claimed job for which the test acts as the worker.
actor PlayedJob {
    nonisolated let job: Job
    private let claim: Claim
    private let queue: JobProducer
    private let output: OutputCommands
    private var sequence = 0

    init(claim: Claim, queue: JobProducer) {
        job = claim.job
        self.claim = claim
        self.queue = queue
        output = OutputCommands(claim.job.id, entry: claim.entry, keys: queue.keys)
    }

    /// Claims the next waiting job.
    static func claimed(from queue: JobProducer, blocking: RedisClient) async throws -> PlayedJob {
        try await until("a job in the queue") { try await claimedNow(from: queue, blocking: blocking) }
    }

    /// Claims the next waiting job; nil if there is none.
    static func claimedNow(from queue: JobProducer, blocking: RedisClient) async throws -> PlayedJob? {
        let consumer = JobConsumer(redis: queue.redis, blocking: blocking, settings: queue.settings, worker: "played", token: "t")
        try await consumer.createGroups()
        let taken = try await consumer.take(partition: 0, classes: JobClass.allCases, count: 1)
        guard let entry = taken.entries.first, let bytes = entry.job,
            case .claimed(let claim) = try await consumer.claim(Job(parsing: bytes), entry: entry, leaseExpired: false)
        else { return nil }
        return PlayedJob(claim: claim, queue: queue)
    }

    private func place(_ event: GenerationEvent) -> LoggedEvent {
        sequence += 1
        return LoggedEvent(id: EventID(attempt: claim.attempt, sequence: sequence), event: event)
    }

    /// Writes events to the job's log and output channel.
    func write(_ events: GenerationEvent...) async throws {
        var pipeline = RedisPipeline()
        _ = output.append(events.map { place($0) }.map { ($0.id, $0.json) }, to: &pipeline)
        for reply in try await queue.redis.send(pipeline) { _ = try reply.orThrow() }
    }

    /// Writes the terminal event and ends the job.
    func end(_ event: GenerationEvent, usage: Usage = Usage(promptTokens: 1, completionTokens: 2, estimated: false)) async throws {
        let previous = EventID(attempt: claim.attempt, sequence: sequence)
        var pipeline = RedisPipeline()
        output.append(
            .init(event: place(event), previous: previous, progress: JobProgress(usage: usage)), entry: claim.entry,
            settings: queue.settings, loaded: false,
            to: &pipeline)
        for reply in try await queue.redis.send(pipeline) { _ = try reply.orThrow() }
    }
}

/// Runs `body` with a gateway's router that serves on a free port.
func withHTTPLab(
    settings fill: (inout GatewaySettings) -> Void = { _ in }, queueMaximum: Int = 100, redis redisSettings: RedisSettings = .forTests,
    _ body: (HTTPLab) async throws -> Void
) async throws {
    let group = MultiThreadedEventLoopGroup.singleton
    let loop = group.next()
    let logger = Logger(label: "lab", factory: { _ in SwiftLogNoOpLogHandler() })
    var queueSettings = QueueSettings()
    let namespace = "lab\(UInt32.random(in: 0..<UInt32.max))"
    queueSettings.keys = Keys(namespace: namespace)
    queueSettings.queueMaximum = queueMaximum
    let url = try RedisURL(PrivateRedis.current.url)
    let client = RedisClient(url: url, settings: redisSettings, eventLoop: loop, name: "commands", logger: logger)
    let blocking = RedisClient(url: url, settings: .forTests, eventLoop: loop, name: "blocking", logger: logger)
    let subscriber = RedisSubscriber(url: url, settings: .forTests, eventLoop: loop, name: "events", logger: logger)
    var settings = GatewaySettings()
    settings.name = "lab-gateway"
    settings.authentication.apiKeys = "tenant-a:tenant-a-test-key,tenant-b:tenant-b-test-key"
    // A busy machine may schedule a client late.
    settings.handshakeTimeout = .testDeadline
    fill(&settings)
    let queue = JobProducer(redis: client, settings: queueSettings)
    let readiness = Readiness(isRedisReachable: { client.isConnected }, isSubscriptionAlive: { subscriber.isAlive })
    let context = GatewayContext(
        settings: settings, queue: queue, feed: EventFeed(queue: queue, subscriber: subscriber, eventLoop: loop, logger: logger),
        authenticator: try Authenticator(settings: settings.authentication, logger: logger), eventLoop: loop, readiness: readiness,
        logger: logger)
    let (ports, portFound) = AsyncStream.makeStream(of: Int.self)
    let application = Application(
        router: makeRouter(context, models: ["one", "two"], metrics: { "sluice_up 1\n" }),
        configuration: .init(address: .hostname("127.0.0.1", port: 0)),
        onServerRunning: { channel in portFound.yield(channel.localAddress?.port ?? 0) }, eventLoopGroupProvider: .shared(group),
        logger: logger)
    try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { await client.run() }
        tasks.addTask { await blocking.run() }
        tasks.addTask { await subscriber.run() }
        tasks.addTask { try await application.run() }
        var iterator = ports.makeAsyncIterator()
        let port = await iterator.next() ?? 0
        let lab = HTTPLab(port: port, queue: queue, readiness: readiness, blocking: blocking, namespace: namespace, shares: context.shares)
        let result: Result<Void, any Error>
        do {
            try await until("Redis") { readiness.problem == nil }
            result = .success(try await body(lab))
        } catch { result = .failure(error) }
        client.shutdown()
        blocking.shutdown()
        subscriber.shutdown()
        tasks.cancelAll()
        // The server ends with a cancellation error; ignore it.
        while let ended = await tasks.nextResult() { _ = ended }
        try result.get()
    }
}
