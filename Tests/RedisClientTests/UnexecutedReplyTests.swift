import Logging
import NIOCore
import TestSupport
import Testing

@testable import RedisClient

/// Commands that Redis has not executed are sent again until their deadline.
@Suite struct UnexecutedReplyTests {
    @Test(arguments: [
        "READONLY You can't write against a read only replica.", "ERR READONLY You can't write against a read only replica.",
        "READONLY You can't write against a read only replica. script: ab, on @user_script:1.",
        "ERR Error running script (call to f_ab): @user_script:1: -READONLY You can't write against a read only replica.",
        "ERR Error running script (call to f_ab): @user_script:1: @user_script: 1: -READONLY You can't write against a read only replica.",
        "@user_script: 1: -READONLY You can't write against a read only replica.",
        "MOVED 3999 127.0.0.1:6381", "ASK 3999 127.0.0.1:6381", "TRYAGAIN Multiple keys request during rehashing of slot",
        "CLUSTERDOWN Hash slot not served", "LOADING Redis is loading the dataset in memory", "MASTERDOWN Link with MASTER is down",
        "NOREPLICAS Not enough good replicas to write.", "-NOREPLICAS Not enough good replicas to write.",
    ]) func `replies that mean not executed`(_ text: String) {
        #expect(UnexecutedReply(.error(text))?.text == text)
    }

    @Test(arguments: [
        "ERR unknown command", "OOM command not allowed when used memory > 'maxmemory'.", "WRONGTYPE Operation against a key",
        "NOSCRIPT No matching script.", "ERR", "", "NOGROUP No such key 'READONLY' or consumer group", "MOVEDX",
    ]) func `other errors are results`(_ text: String) {
        #expect(UnexecutedReply(.error(text)) == nil)
        #expect(UnexecutedReply(.simple("READONLY")) == nil)
    }

    /// What makes a real server refuse commands, and what makes it execute them again.
    private static let refusals = [
        (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]),
        (["CONFIG", "SET", "min-replicas-to-write", "1"], ["CONFIG", "SET", "min-replicas-to-write", "0"]),
    ]

    @Test(arguments: refusals) func `commands and scripts wait until the server executes them`(_ begin: [String], _ end: [String])
        async throws
    {
        try await withRedis { server in
            let admin = try await server.connect()
            try await withClient(server.url) { redis in
                try await admin.send(begin)
                let script = RedisScript(name: "test", source: "redis.call('INCR', KEYS[1]) return redis.call('INCR', KEYS[1])")
                async let first = redis.send("SET", "a", "1")
                async let second = redis.run(script, keys: ["b"], arguments: [])
                async let third = redis.send("INCR", "c")
                var pipeline = RedisPipeline()
                pipeline.append("INCR", "d")
                pipeline.append("INCR", "d")
                async let fourth = redis.send(pipeline)
                // Every command is refused once at least.
                try await until("refused commands") {
                    let text = try await admin.send("INFO", "commandstats").string ?? ""
                    let lines = text.split(whereSeparator: \.isNewline)
                    return ["cmdstat_set:", "cmdstat_incr:"].allSatisfy { name in
                        lines.contains { $0.hasPrefix(name) && !$0.contains("rejected_calls=0") }
                    }
                }
                try await admin.send(end)
                #expect(try await first == .simple("OK"))
                #expect(try await second == .integer(2))
                #expect(try await third == .integer(1))
                #expect(try await fourth == [.integer(1), .integer(2)])
            }
            await admin.close()
        }
    }

    @Test func `a command that is never executed fails at its deadline`() async throws {
        try await withRedis { server in
            try await server.command("REPLICAOF", "127.0.0.1", "1")
            try await withClient(server.url) { redis in
                do throws(RedisError) {
                    _ = try await redis.send("SET", "a", "1", timeout: .seconds(3))
                    Issue.record("the command was executed")
                } catch {
                    // On a busy machine there may be no connection yet, or the last repetition may still be without its reply.
                    #expect(error.code == .unavailable || error.code == .timeout, "\(error)")
                }
            }
        }
    }

    /// Their replies tell the caller what was executed.
    @Test func `a pipeline that was executed in part is not repeated`() async throws {
        try await withRedis { server in
            try await server.command("SET", "a", "1")
            try await server.command("REPLICAOF", "127.0.0.1", "1")
            let log = CapturedLog()
            try await withClient(server.url, log: log) { redis in
                var pipeline = RedisPipeline()
                pipeline.append("GET", "a")
                pipeline.append("SET", "a", "2")
                let replies = try await redis.send(pipeline)
                #expect(replies.first == .text("1") && UnexecutedReply(replies[1]) != nil)
                // The next connection may reach the new primary.
                #expect(try await log.wait(for: "redis connection lost").metadata.contains("READONLY"))
                _ = try await log.wait(for: "redis connection restored")
            }
        }
    }
}
