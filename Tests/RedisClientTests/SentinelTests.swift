import NIOCore
import TestSupport
import Testing

@testable import RedisClient

/// A client of real redis-sentinel processes.
@Suite(.serialized) struct SentinelTests {
    private func until(_ redis: RedisClient, reaches server: PrivateRedis) async throws {
        try await TestSupport.until("a connection to 127.0.0.1:\(server.port), not \(redis.server ?? "none")") {
            redis.isConnected && redis.server == "127.0.0.1:\(server.port)"
        }
    }

    @Test func `the primary is found, and found again after it dies`() async throws {
        try await withSentinels { group in
            let log = CapturedLog()
            try await withClient(group.url, log: log) { redis in
                let reply = try await redis.send("SET", "k", "v")
                #expect(reply == .simple("OK"))
                #expect(redis.server == "127.0.0.1:\(group.servers[0].port)")
                await group.servers[0].kill()
                let primary = try await group.newPrimary(after: group.servers[0])
                try await until(redis, reaches: primary)
                #expect(try await redis.send("SET", "k", "w") == .simple("OK"))
                #expect(redis.connections == 2)
            }
        }
    }

    /// A frozen server keeps its connections.
    @Test func `an announcement ends the connection to a frozen primary`() async throws {
        try await withSentinels { group in
            var settings = RedisSettings.forTests
            settings.silence = .seconds(60)
            settings.commandTimeout = .seconds(60)
            try await withClient(group.url, settings: settings) { redis in
                #expect(try await redis.send("PING") == .simple("PONG"))
                try await withSubscriber(group.url, settings: settings) { subscriber in
                    let received = Observed<[String]>([])
                    subscriber.eventLoop.execute {
                        subscriber.subscribe("news") { event in
                            if case .message(let text) = event { received.update { $0.append(String(buffer: text)) } }
                        }
                    }
                    group.servers[0].freeze()
                    let primary = try await group.newPrimary(after: group.servers[0])
                    try await until(redis, reaches: primary)
                    try await TestSupport.until("a message by the new primary") {
                        _ = try await redis.send("PUBLISH", "news", "n")
                        return received.read { !$0.isEmpty }
                    }
                }
                group.servers[0].thaw()
            }
        }
    }

    @Test func `all sentinels but one are dead`() async throws {
        var options = PrivateSentinels.Options()
        options.replicas = 1
        try await withSentinels(options) { group in
            await group.killSentinel(0)
            group.freezeSentinel(1)
            try await withClient(group.url) { redis in
                let reply = try await redis.send("SET", "k", "v")
                #expect(reply == .simple("OK"))
            }
        }
    }

    @Test func `sentinels and servers with passwords`() async throws {
        var options = PrivateSentinels.Options()
        (options.replicas, options.sentinels) = (0, 1)
        (options.password, options.sentinelPassword) = ("secret-server", "secret-sentinel")
        try await withSentinels(options) { group in
            var settings = RedisSettings.forTests
            settings.sentinelPassword = options.sentinelPassword
            try await withClient(group.url, settings: settings) { redis in
                let reply = try await redis.send("SET", "k", "v")
                #expect(reply == .simple("OK"))
            }
            for (password, reason) in [(nil, "NOAUTH"), ("wrong", "WRONGPASS")] {
                settings.sentinelPassword = password
                let log = CapturedLog()
                try await withClient(group.url, settings: settings, log: log) { _ in
                    let line = try await log.wait(for: "redis refuses the connection")
                    #expect(line.metadata.contains(reason) && !line.metadata.contains("secret-"), "\(line.metadata)")
                }
            }
            settings.sentinelPassword = options.sentinelPassword
            let log = CapturedLog()
            try await withClient(group.url.replacing(PrivateSentinels.service, with: "other"), settings: settings, log: log) { _ in
                let line = try await log.wait(for: "redis refuses the connection")
                #expect(line.metadata.contains("does not know this service"), "\(line.metadata)")
            }
        }
    }
}
