import NIOCore
import TestSupport
import Testing

@testable import RedisClient

/// Replies that do not belong to their commands, and limits on bytes.
@Suite struct ReplyOrderTests {
    /// Otherwise every later command would receive the reply of another one.
    @Test(arguments: [.dropped, .doubled, .rubbish, .hugeLength] as [SpoilingProxy.Spoiling])
    func `a missing or extra reply closes the connection under load`(
        _ kind: SpoilingProxy.Spoiling
    ) async throws {
        try await withRedis { server in
            let proxy = try await SpoilingProxy.start(to: server.port, seed: 1)
            let log = CapturedLog()
            try await withClient(proxy.url, log: log) { redis in
                let first = try await redis.send("ECHO", "first")
                #expect(first == .text("first"))
                let isDone = Observed(false)
                // Two senders: there is always a command in flight, so an extra reply is taken for the reply of a command.
                await withTaskGroup(of: Void.self) { tasks in
                    for sender in 0..<2 {
                        tasks.addTask {
                            var number = 0
                            while !isDone.value {
                                number += 1
                                _ = try? await redis.send("ECHO", .string("\(sender)-\(number)"))
                            }
                        }
                    }
                    tasks.addTask {
                        // After two missing replies both senders would wait, and the connection would not be checked by further commands.
                        proxy.spoil(every: 1, [kind], limit: 1)
                        _ = try? await log.wait(for: "redis connection lost")
                        isDone.update { $0 = true }
                    }
                }
                #expect(log.lines("redis connection lost").count == 1)
                for number in 0..<20 { #expect(try await redis.send("ECHO", .integer(number)) == .text("\(number)")) }
            }
            await proxy.close()
        }
    }

    @Test func `a reply that does not fit its command closes the connection`() async throws {
        try await withRedis { server in
            let log = CapturedLog()
            try await withClient(server.url, log: log) { redis in
                let reply = try await redis.send("ECHO", "a prompt")
                let error = redis.misfit(reply, to: "the script")
                #expect(error.code == .protocolViolation && error.message == "the script was answered by a string of 8 bytes")
                _ = try await log.wait(for: "redis connection lost")
                #expect(try await redis.send("PING") == .simple("PONG"))
            }
        }
    }

    @Test(arguments: [":1\r\n", "$4\r\nPONG\r\n", "+OK\r\n", "*0\r\n", "$-1\r\n"]) func `a server that is not Redis is not used`(
        _ pong: String
    )
        async throws
    {
        let server = try await ScriptedServer.start(ping: [pong, "+PONG\r\n"])
        let log = CapturedLog()
        try await withClient(server.url, log: log) { redis in
            let line = try await log.wait(for: "redis cannot be reached")
            #expect(line.metadata.contains("handshake"))
            _ = try await log.wait(for: "redis connection restored")
        }
        await server.close()
    }

    @Test func `the bytes of commands in flight are limited`() async throws {
        try await withRedis { server in
            var settings = RedisSettings.forTests
            settings.bytesMaximum = 100_000
            try await withClient(server.url, settings: settings) { redis in
                let pong = try await redis.send("PING")
                #expect(pong == .simple("PONG"))
                let text = String(repeating: "x", count: 60_000)
                let codes = Observed<[RedisError.Code?]>([])
                // In one tick, so that no reply arrives between them.
                redis.eventLoop.execute {
                    for _ in 0..<2 {
                        var pipeline = RedisPipeline()
                        pipeline.append("ECHO", .string(text))
                        redis.send(pipeline) { result in codes.update { $0.append(result.error?.code) } }
                    }
                }
                try await until("both results") { codes.value.count == 2 }
                #expect(codes.value == [.overloaded, nil])
                // A single command may exceed the maximum, and answered commands are not counted.
                for _ in 0..<5 {
                    #expect(try await redis.send("ECHO", .string(text + text + text)).string?.utf8.count == 180_000)
                }
            }
        }
    }

    @Test func `the bytes of waiting and sent commands are counted exactly`() throws {
        let deadline = NIODeadline.uptimeNanoseconds(5)
        func request(_ bytes: Int, deadline: NIODeadline = deadline) -> RequestQueue.Request {
            RequestQueue.Request(count: 1, bytes: bytes, deadline: deadline) { _ in }
        }
        var queue = RequestQueue(waitingMaximum: 10, inFlightMaximum: 10, bytesMaximum: 100)
        let commands: [UInt8] = []
        for _ in 0..<50 {
            var taken = [queue.addWaiting(request(60), commands), queue.addWaiting(request(41), commands)]
            taken += [queue.addWaiting(request(40, deadline: .uptimeNanoseconds(1)), commands), queue.addWaiting(request(1), commands)]
            #expect(taken == [true, false, true, false])
            let expired = queue.takeExpiredWaiting(.uptimeNanoseconds(2)).count
            taken = [queue.addWaiting(request(40), commands)]
            let sent = queue.sendWaiting().count
            #expect(expired == 1 && sent == 2)
            taken += [queue.addInFlight(request(1))]
            guard case .complete = queue.received(.null) else {
                Issue.record("not complete")
                return
            }
            taken += [queue.addInFlight(request(60)), queue.addInFlight(request(1))]
            #expect(taken == [true, false, true, false])
            let lost = queue.takeInFlight().count
            taken = [queue.addInFlight(request(500))]
            let rest = queue.takeAll().count
            #expect(lost == 2 && taken == [true] && rest == 1)
        }
    }

    @Test func `a message above the maximum closes the connection`() async throws {
        try await withRedis { server in
            var settings = RedisSettings.forTests
            settings.messageMaximum = 10_000
            let log = CapturedLog()
            try await withSubscriber(server.url, settings: settings, log: log) { subscriber -> Void in
                let (feed, continuation) = AsyncStream.makeStream(of: SubscriptionEvent.self)
                subscriber.eventLoop.execute { subscriber.subscribe("c") { continuation.yield($0) } }
                var events = feed.makeAsyncIterator()
                guard case .subscribed = await events.next() else { throw WaitedInVain(description: "not subscribed") }
                try await server.command("PUBLISH", "c", String(repeating: "x", count: 20_000))
                guard case .lost = await events.next(), case .subscribed = await events.next() else {
                    throw WaitedInVain(description: "not lost")
                }
                try await server.command("PUBLISH", "c", "short")
                guard case .message(let message) = await events.next() else { throw WaitedInVain(description: "no message") }
                #expect(String(buffer: message) == "short")
            }
        }
    }
}
