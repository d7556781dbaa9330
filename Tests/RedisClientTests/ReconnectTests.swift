import Logging
import NIOCore
import TestSupport
import Testing

@testable import RedisClient

/// Servers that crash, hang, reject the client or send invalid replies.
@Suite struct ReconnectTests {
    @Test func `a killed connection is restored`() async throws {
        try await withRedis { server in
            let log = CapturedLog()
            try await withClient(server.url, log: log) { redis in
                let connects = Observed(0)
                redis.onConnect {
                    redis.eventLoop.preconditionInEventLoop()
                    connects.update { $0 += 1 }
                }
                async let blocked = code { try await redis.send("BLPOP", "never", "0", timeout: .seconds(60)) }
                try await until("the client to block") { try await server.command("CLIENT", "LIST").string?.contains("cmd=blpop") == true }
                let before = connects.value
                try await server.command("CLIENT", "KILL", "TYPE", "normal")
                #expect(await blocked == .connectionLost)
                #expect(try await redis.send("PING") == .simple("PONG"))
                #expect(connects.value == before + 1)
                #expect(redis.isConnected)
                let lost = try await log.wait(for: "redis connection lost")
                #expect(lost.level == .warning && lost.metadata.contains("closed"))
                let back = try await log.wait(for: "redis connection restored")
                #expect(back.level == .info && back.metadata.contains("away_ms"))
            }
            #expect(log.lines.value.count == 2)
        }
    }

    @Test func `commands wait for a restart of the server`() async throws {
        try await withRedis { server in
            let log = CapturedLog()
            try await withClient(server.url, log: log) { redis in
                #expect(try await redis.send("PING") == .simple("PONG"))
                await server.kill()
                _ = try await log.wait(for: "redis connection lost")
                async let first = redis.send("ECHO", "1")
                async let second = redis.send("ECHO", "2")
                // Several connection attempts fail meanwhile and are not logged.
                #expect(await code { try await redis.send("ECHO", "3", timeout: .milliseconds(300)) } == .unavailable)
                try await server.start()
                #expect(try await first == .text("1"))
                #expect(try await second == .text("2"))
                _ = try await log.wait(for: "redis connection restored")
                #expect(log.lines.value.count == 2)
            }
        }
    }

    @Test func `the number of waiting commands is limited`() async throws {
        let server = try PrivateRedis.stopped()
        var settings = RedisSettings.forTests
        settings.waitingMaximum = 2
        try await withClient(server.url, settings: settings) { redis in
            let codes = Observed<[RedisError.Code?]>([])
            // In one tick, so that none of them times out before the next one is sent.
            redis.eventLoop.execute {
                for _ in 0..<3 {
                    var pipeline = RedisPipeline()
                    pipeline.append("PING")
                    redis.send(pipeline, timeout: .milliseconds(200)) { result in codes.update { $0.append(result.error?.code) } }
                }
            }
            let all = try await codes.wait({ "three results, \($0)" }) { $0.count == 3 ? $0 : nil }
            #expect(all == [.overloaded, .unavailable, .unavailable])
        }
        await server.remove()
    }

    @Test func `a command timeout closes the connection`() async throws {
        try await withRedis { server in
            let log = CapturedLog()
            try await withClient(server.url, log: log) { redis in
                _ = try await redis.send("CLIENT", "ID")
                let (late, behind) = await withCheckedContinuation { continuation in
                    let first = Observed<RedisError.Code?>(nil)
                    redis.eventLoop.execute {
                        var blocking = RedisPipeline()
                        blocking.append("BLPOP", "never", "0")
                        redis.send(blocking, timeout: .milliseconds(200)) { result in first.update { $0 = result.error?.code } }
                        var other = RedisPipeline()
                        other.append("PING")
                        redis.send(other, timeout: .seconds(60)) { continuation.resume(returning: (first.value, $0.error?.code)) }
                    }
                }
                #expect(late == .timeout)
                #expect(behind == .connectionLost)
                #expect(try await redis.send("PING") == .simple("PONG"))
            }
            #expect(log.lines("redis connection lost").first?.metadata.contains("deadline") == true)
        }
    }

    @Test func `a server that stops answering is detected by PING`() async throws {
        try await withRedis { server in
            let proxy = try await FaultProxy.start(to: server.port)
            var settings = RedisSettings.forTests
            settings.silence = .seconds(6)
            let log = CapturedLog()
            try await withClient("redis://127.0.0.1:\(proxy.port)", settings: settings, log: log) { redis in
                #expect(try await redis.send("PING") == .simple("PONG"))
                // Earlier PINGs: one of the fixture, one of the handshake, one of this test.
                try await until("two more PINGs") { try await pings(server) >= 5 }
                #expect(log.lines.value.isEmpty, "\(log.lines.value)")
                #expect(proxy.accepted == 1)
                proxy.set { $0.silent = true }
                // No command is sent.
                _ = try await log.wait(for: "redis connection lost")
                #expect(!redis.isConnected)
                proxy.heal()
                _ = try await log.wait(for: "redis connection restored")
                #expect(try await redis.send("PING") == .simple("PONG"))
            }
            await proxy.close()
        }
    }

    @Test(arguments: [1, 2, 3] as [UInt64]) func `replies in delayed pieces are complete`(_ seed: UInt64) async throws {
        try await withRedis { server in
            let proxy = try await FaultProxy.start(to: server.port, seed: seed)
            proxy.set {
                $0.slices = true
                $0.latency = .milliseconds(2)
            }
            try await withClient("redis://127.0.0.1:\(proxy.port)") { redis in
                var pipeline = RedisPipeline()
                for number in 0..<300 { pipeline.append("ECHO", .string(String(repeating: "\(number),", count: number))) }
                let replies = try await redis.send(pipeline)
                #expect(replies.enumerated().allSatisfy { $1.string == String(repeating: "\($0),", count: $0) })
            }
            await proxy.close()
        }
    }

    @Test func `users and passwords`() async throws {
        var options = PrivateRedis.Options(password: "sesame")
        options.arguments = ["--user", "alice", "on", ">p@ss:word", "~*", "&*", "+@all"]
        try await withRedis(options) { server in
            try await withClient(server.url) { redis in _ = try await redis.send("PING") }
            try await withClient("redis://alice:p%40ss%3Aword@127.0.0.1:\(server.port)") { redis in
                let seen = try await redis.send("ACL", "WHOAMI")
                #expect(seen == .text("alice"))
            }
            for url in [
                "redis://:wrong@127.0.0.1:\(server.port)", "redis://bob:wrong@127.0.0.1:\(server.port)", "redis://127.0.0.1:\(server.port)",
            ] {
                let log = CapturedLog()
                try await withClient(url, log: log) { redis in
                    let line = try await log.wait(for: "redis refuses the connection")
                    #expect(line.level == .error)
                    #expect(await code { try await redis.send("PING", timeout: .milliseconds(300)) } == .unavailable)
                }
                #expect(log.lines.value.count == 1)
                #expect(!log.lines.value.contains { $0.metadata.contains("wrong") || $0.message.contains("wrong") })
            }
        }
    }

    @Test func `a server that is loading its data is not used`() async throws {
        let server = try await ScriptedServer.start(
            ping: ["-LOADING Redis is loading the dataset in memory\r\n", "+PONG\r\n"], answer: Array(":7\r\n".utf8))
        let log = CapturedLog()
        try await withClient(server.url, log: log) { redis in
            let seen = try await redis.send("ANY")
            #expect(seen == .integer(7))
        }
        #expect(log.lines("redis cannot be reached").first?.metadata.contains("LOADING") == true)
        await server.close()
    }

    @Test(arguments: [
        "$9999999999\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n", "rubbish\r\n", ":1\r\n:2\r\n",
    ]) func `an invalid reply closes the connection`(_ answer: String) async throws {
        let server = try await ScriptedServer.start(answer: Array(answer.utf8))
        let log = CapturedLog()
        try await withClient(server.url, log: log) { redis in
            let failure = await code { try await redis.send("ANY") }
            #expect(failure == .protocolViolation || answer.hasPrefix(":") && failure == nil)
            _ = try await log.wait(for: "redis connection lost")
            _ = try await log.wait(for: "redis connection restored")
        }
        await server.close()
    }

    @Test func `the connect timeout includes the handshake`() async throws {
        // Accepts the connection and sends nothing.
        let server = try await ScriptedServer.start(ping: [""])
        var settings = RedisSettings.forTests
        settings.connectTimeout = .milliseconds(500)
        let log = CapturedLog()
        try await withClient(server.url, settings: settings, log: log) { redis in
            let seen = try await log.wait(for: "redis cannot be reached")
            #expect(seen.metadata.contains("within 500 ms"))
            #expect(!redis.isConnected)
        }
        await server.close()
    }
}
