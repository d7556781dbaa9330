import NIOCore
import NIOPosix
import TestSupport
import Testing

@testable import RedisClient

/// Commands to a healthy server.
@Suite(.redis) struct RedisClientTests {
    private var url: String { PrivateRedis.current.url }

    @Test func `all types of replies`() async throws {
        try await withClient(url) { redis in
            #expect(try await redis.send("SET", "kinds", "1") == .simple("OK"))
            #expect(try await redis.send("GET", "kinds") == .text("1"))
            #expect(try await redis.send("INCR", "kinds") == .integer(2))
            #expect(try await redis.send("GET", "kinds:none") == .null)
            #expect(try await redis.send("MGET", "kinds", "kinds:none") == .array([.text("2"), .null]))
            let error = await #expect(throws: RedisError.self) { try await redis.send("INCRBY", "kinds", "x") }
            #expect(error?.code == .server)
            #expect(error?.message.hasPrefix("ERR ") == true)
            let bytes = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 * 7) }
            _ = try await redis.send(["SET", "kinds:bytes", .bytes(bytes)])
            #expect(try await redis.send("GET", "kinds:bytes").bytes == ByteBuffer(bytes: bytes))
        }
    }

    /// By default a continuation resumes on Swift's shared thread pool.
    @Test func `a task that prefers the client's executor resumes on the event loop`() async throws {
        try await withClient(url) { redis in
            try await withTaskExecutorPreference(redis.executor) {
                for _ in 0..<20 {
                    _ = try await redis.send("PING")
                    #expect(redis.eventLoop.inEventLoop)
                }
            }
        }
    }

    @Test func `replies of a pipeline are in order and include its errors`() async throws {
        try await withClient(url) { redis in
            var pipeline = RedisPipeline()
            for number in 0..<10_000 { pipeline.append("ECHO", .integer(number)) }
            let replies = try await redis.send(pipeline)
            #expect(replies.map(\.integer) == (0..<10_000).map { $0 })

            pipeline = RedisPipeline()
            pipeline.append("SET", "order", "a")
            pipeline.append("INCR", "order")
            pipeline.append("GET", "order")
            let mixed = try await redis.send(pipeline)
            #expect(mixed[0] == .simple("OK") && mixed[1].errorText?.hasPrefix("ERR") == true && mixed[2] == .text("a"))
            #expect(try await redis.send(RedisPipeline()) == [])
        }
    }

    @Test func `tasks share a connection`() async throws {
        try await withClient(url) { redis in
            try await withThrowingTaskGroup(of: Bool.self) { group in
                for task in 0..<50 {
                    group.addTask {
                        for round in 0..<20 where try await redis.send("ECHO", .integer(task * 100 + round)).integer != task * 100 + round {
                            return false
                        }
                        return true
                    }
                }
                for try await isRight in group { #expect(isRight) }
            }
        }
    }

    @Test func `callbacks run on the event loop and may send commands`() async throws {
        try await withClient(url) { redis in
            let values: [Int?] = await withCheckedContinuation { continuation in
                @Sendable func step(_ values: [Int?]) {
                    guard values.count < 5 else { return continuation.resume(returning: values) }
                    var pipeline = RedisPipeline()
                    pipeline.append("INCR", "steps")
                    redis.send(pipeline) { result in
                        redis.eventLoop.preconditionInEventLoop()
                        step(values + [try? result.get().first?.integer])
                    }
                }
                step([])
            }
            #expect(values == [1, 2, 3, 4, 5])
        }
    }

    /// The test has its own server, because the server counts the reads of all its clients.
    @Test func `commands of one tick are written at once`() async throws {
        try await withRedis { server in
            try await withClient(server.url, name: "ticks") { redis in
                _ = try await redis.send("PING")
                let before = try await Self.field("total_reads_processed", redis)
                let done = Observed(0)
                redis.eventLoop.execute {
                    for _ in 0..<100 {
                        var pipeline = RedisPipeline()
                        pipeline.append("PING")
                        redis.send(pipeline) { _ in done.update { $0 += 1 } }
                    }
                }
                _ = try await done.wait({ "100 replies, \($0)" }, until: { $0 == 100 ? true : nil })
                let after = try await Self.field("total_reads_processed", redis)
                #expect(after - before < 10)
            }
        }
    }

    private static func field(_ name: String, _ redis: RedisClient) async throws -> Int {
        let text = try await redis.send("INFO", "stats").string ?? ""
        let line = text.split(whereSeparator: \.isNewline).first { $0.hasPrefix(name + ":") }
        return line.flatMap { Int($0.dropFirst(name.count + 1)) } ?? -1
    }

    @Test func `incomplete commands are not sent`() async throws {
        try await withClient(url) { redis in
            var pipeline = RedisPipeline()
            pipeline.begin(arguments: 2)
            pipeline.argument("GET")
            let broken = pipeline
            let error = await #expect(throws: RedisError.self) { try await redis.send(broken) }
            #expect(error?.code == .protocolViolation)
            let seen = try await redis.send("PING")
            #expect(seen == .simple("PONG"))
        }
    }

    @Test func `scripts are loaded once`() async throws {
        let script = RedisScript(name: "add", source: "return redis.call('INCRBY', KEYS[1], ARGV[1])")
        try await withClient(url) { redis in
            _ = try await redis.send("SCRIPT", "FLUSH")
            #expect(try await redis.run(script, keys: ["scripted"], arguments: [5]) == .integer(5))
            #expect(try await redis.send("SCRIPT", "EXISTS", .string(script.digest)) == .array([.integer(1)]))
            #expect(try await redis.run(script, keys: ["scripted"], arguments: ["2"]) == .integer(7))
            let error = await #expect(throws: RedisError.self) { try await redis.run(script, keys: ["scripted"], arguments: ["x"]) }
            #expect(error?.code == .server)
        }
    }

    @Test func `database, client name and Unix socket`() async throws {
        let server = PrivateRedis.current
        try await withClient(server.socketURL + "?db=3", name: "my worker\n1") { redis in
            let seen = try await redis.send("CLIENT", "GETNAME")
            #expect(seen == .text("my_worker_1"))
            #expect(try await redis.send("CLIENT", "INFO").string?.contains(" db=3 ") == true)
        }
        try await withClient(server.url + "/2") { redis in
            let seen = try await redis.send("CLIENT", "INFO")
            #expect(seen.string?.contains(" db=2 ") == true)
        }
    }

    @Test func `a blocking command may take longer than the silence timeout`() async throws {
        var settings = RedisSettings.forTests
        settings.silence = .seconds(7)
        settings.commandTimeout = .seconds(8)
        let log = CapturedLog()
        try await withClient(url, settings: settings, log: log) { redis in
            let seen = try await redis.send("BLPOP", "nothing", "16", timeout: .seconds(60))
            #expect(seen == .null)
            #expect(try await redis.send("PING") == .simple("PONG"))
        }
        #expect(log.lines.value.isEmpty)
    }

    @Test func `shutdown fails pending and later commands`() async throws {
        try await withClient(url) { redis in
            async let blocked = code { try await redis.send("BLPOP", "shut", "0", timeout: .seconds(60)) }
            try await until("the client to block") {
                try await PrivateRedis.current.command("CLIENT", "LIST").string?.contains("cmd=blpop") == true
            }
            redis.shutdown()
            #expect(await blocked == .shutdown)
            #expect(await code { try await redis.send("PING") } == .shutdown)
            #expect(!redis.isConnected)
        }
    }

    @Test func `run returns when its task is cancelled`() async throws {
        let redis = RedisClient(
            url: try RedisURL(url), settings: .forTests, eventLoop: MultiThreadedEventLoopGroup.singleton.any(), name: "cancelled",
            logger: CapturedLog().logger)
        let running = Task { await redis.run() }
        #expect(try await redis.send("PING") == .simple("PONG"))
        running.cancel()
        await running.value
        #expect(!redis.isConnected)
        // A second call of `run` returns at once.
        await redis.run()
    }
}
