import Logging
import NIOCore
import TestSupport
import Testing

@testable import RedisClient

/// Servers that go away, hang, refuse, or talk rubbish.
@Suite struct ReconnectTests {
    @Test func aKilledConnectionComesBack() async throws {
        try await withRedis { server in
            let log = CapturedLog()
            try await withClient(server.url, log: log) { redis in
                let connects = Observed(0)
                redis.onConnect {
                    redis.eventLoop.preconditionInEventLoop()
                    connects.update { $0 += 1 }
                }
                async let blocked = code { try await redis.send("BLPOP", "never", "0", timeout: .seconds(30)) }
                try await until("the client blocks") { try await server.command("CLIENT", "LIST").string?.contains("cmd=blpop") == true }
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

    @Test func commandsWaitForARestart() async throws {
        try await withRedis { server in
            let log = CapturedLog()
            var settings = RedisSettings.forTests
            settings.commandTimeout = .seconds(20)
            try await withClient(server.url, settings: settings, log: log) { redis in
                #expect(try await redis.send("PING") == .simple("PONG"))
                await server.kill()
                _ = try await log.wait(for: "redis connection lost")
                async let first = redis.send("ECHO", "1")
                async let second = redis.send("ECHO", "2")
                // Several attempts fail meanwhile, and none of them is logged.
                #expect(await code { try await redis.send("ECHO", "3", timeout: .milliseconds(300)) } == .unavailable)
                try await server.start()
                #expect(try await first == .text("1"))
                #expect(try await second == .text("2"))
                _ = try await log.wait(for: "redis connection restored")
                #expect(log.lines.value.count == 2)
            }
        }
    }

    @Test func waitingIsBounded() async throws {
        let server = try PrivateRedis.stopped()
        var settings = RedisSettings.forTests
        settings.waitingMaximum = 2
        try await withClient(server.url, settings: settings) { redis in
            async let first = code { try await redis.send("PING", timeout: .milliseconds(200)) }
            async let second = code { try await redis.send("PING", timeout: .milliseconds(200)) }
            async let third = code { try await redis.send("PING", timeout: .milliseconds(200)) }
            // Whichever comes last is refused at once.
            let codes = await [first, second, third]
            #expect(codes.filter { $0 == .overloaded }.count == 1 && codes.filter { $0 == .unavailable }.count == 2)
        }
        await server.remove()
    }

    @Test func aMissedDeadlineThrowsTheConnectionAway() async throws {
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
                        redis.send(other, timeout: .seconds(10)) { continuation.resume(returning: (first.value, $0.error?.code)) }
                    }
                }
                #expect(late == .timeout)
                #expect(behind == .connectionLost)
                #expect(try await redis.send("PING") == .simple("PONG"))
            }
            #expect(log.lines("redis connection lost").first?.metadata.contains("deadline") == true)
        }
    }

    @Test func aFrozenServerIsFoundByPing() async throws {
        try await withRedis { server in
            let proxy = try await FaultProxy.start(to: server.port)
            var settings = RedisSettings.forTests
            settings.silence = .seconds(4)
            let log = CapturedLog()
            try await withClient("redis://127.0.0.1:\(proxy.port)", settings: settings, log: log) { redis in
                #expect(try await redis.send("PING") == .simple("PONG"))
                // Idle, but the server answers (one PING of the fixture, one of the handshake, one of this test).
                try await until("two more PINGs") { try await pings(server) >= 5 }
                #expect(log.lines.value.isEmpty, "\(log.lines.value)")
                #expect(proxy.accepted == 1)
                proxy.set { $0.silent = true }
                // Nothing is sent by anybody: the client finds out by itself.
                _ = try await log.wait(for: "redis connection lost")
                #expect(!redis.isConnected)
                proxy.heal()
                _ = try await log.wait(for: "redis connection restored")
                #expect(try await redis.send("PING") == .simple("PONG"))
            }
            await proxy.close()
        }
    }

    @Test(arguments: [1, 2, 3] as [UInt64]) func slicedAndDelayedAnswersAreRight(_ seed: UInt64) async throws {
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

    @Test func passwords() async throws {
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

    @Test func aLoadingServerIsNotConnected() async throws {
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
    ]) func rubbishClosesTheConnection(_ answer: String) async throws {
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

    @Test func aReplicaIsLeft() async throws {
        let server = try await ScriptedServer.start(answer: Array("-READONLY You can't write against a read only replica.\r\n".utf8))
        let log = CapturedLog()
        try await withClient(server.url, log: log) { redis in
            #expect(await code { try await redis.send("SET", "a", "b") } == .server)
            #expect(try await log.wait(for: "redis connection lost").metadata.contains("replica"))
            _ = try await log.wait(for: "redis connection restored")
        }
        await server.close()
    }

    @Test func theConnectDeadlineCoversTheHandshake() async throws {
        // Accepts and never says a word.
        let server = try await ScriptedServer.start(ping: [""])
        var settings = RedisSettings.forTests
        settings.connectTimeout = .milliseconds(100)
        let log = CapturedLog()
        try await withClient(server.url, settings: settings, log: log) { redis in
            let seen = try await log.wait(for: "redis cannot be reached")
            #expect(seen.metadata.contains("within 100 ms"))
            #expect(!redis.isConnected)
        }
        await server.close()
    }
}
