import NIOCore
import TestSupport
import Testing

/// Tests of the proxy that other tests rely on.
@Suite(.redis, .serialized)
struct FaultProxyTests {
    private func connection(_ proxy: FaultProxy) async throws -> RawRedis { try await RawRedis.connect(port: proxy.port) }

    @Test func `slices arrive complete and in order`() async throws {
        let proxy = try await FaultProxy.start(to: PrivateRedis.current.port, seed: 7)
        proxy.set { $0.slices = true }
        let redis = try await connection(proxy)
        let value = (0..<2_000).map(String.init).joined(separator: ",")
        #expect(try await redis.send("SET", "sliced", value) == .simple("OK"))
        #expect(try await redis.send("GET", "sliced") == .bulk(value))
        #expect(proxy.accepted == 1 && proxy.open == 1)
        await redis.close()
        await proxy.close()
    }

    @Test func `latency delays each way`() async throws {
        let proxy = try await FaultProxy.start(to: PrivateRedis.current.port)
        let redis = try await connection(proxy)
        #expect(try await redis.send("PING") == .simple("PONG"))
        proxy.set { $0.latency = .milliseconds(60) }
        let start = ContinuousClock.now
        #expect(try await redis.send("PING") == .simple("PONG"))
        #expect(ContinuousClock.now - start >= .milliseconds(119))
        await redis.close()
        await proxy.close()
    }

    @Test func `silence holds data back until it ends`() async throws {
        let proxy = try await FaultProxy.start(to: PrivateRedis.current.port)
        let redis = try await connection(proxy)
        #expect(try await redis.send("PING") == .simple("PONG"))
        proxy.set { $0.silent = true }
        let answer = Task { try await redis.send("INCR", "silent") }
        let late = Task { try await connection(proxy).send("PING") }
        try await until("the second connection to be accepted") { proxy.accepted == 2 }
        #expect(try await PrivateRedis.current.command("GET", "silent") == .null)
        proxy.heal()
        #expect(try await answer.value == .integer(1))
        #expect(try await late.value == .simple("PONG"))
        await redis.close()
        await proxy.close()
    }

    @Test func `data held by silence keeps its order`() async throws {
        let proxy = try await FaultProxy.start(to: PrivateRedis.current.port)
        let (listener, publisher) = (try await connection(proxy), try await PrivateRedis.current.connect())
        let messages = try await listener.subscribe("ordered")
        let publishing = Task { for number in 0..<1_000 { try await publisher.send("PUBLISH", "ordered", "\(number)") } }
        let interrupting = Task {
            while !Task.isCancelled {
                proxy.set { $0.silent = true }
                await Task.yield()
                proxy.heal()
                await Task.yield()
            }
        }
        var next = 0
        for await message in messages {
            guard message.text == "\(next)" else {
                Issue.record("\(message.text) where \(next) was due")
                break
            }
            next += 1
            if next == 1_000 { break }
        }
        interrupting.cancel()
        publishing.cancel()
        await listener.close()
        await publisher.close()
        await proxy.close()
    }

    @Test(arguments: [true, false]) func `cut and reset end connections, and new ones are accepted`(reset: Bool) async throws {
        let proxy = try await FaultProxy.start(to: PrivateRedis.current.port)
        let redis = try await connection(proxy)
        #expect(try await redis.send("PING") == .simple("PONG"))
        reset ? proxy.reset() : proxy.cut()
        await #expect(throws: (any Error).self) { while true { try await redis.send("PING") } }
        let next = try await connection(proxy)
        #expect(try await next.send("PING") == .simple("PONG"))
        await next.close()
        await proxy.close()
    }

    @Test func `a refusing proxy resets at once`() async throws {
        let proxy = try await FaultProxy.start(to: PrivateRedis.current.port)
        proxy.set { $0.refuses = true }
        await #expect(throws: (any Error).self) { while true { try await connection(proxy).send("PING") } }
        proxy.heal()
        #expect(try await connection(proxy).send("PING") == .simple("PONG"))
        await proxy.close()
    }

    @Test func `a task that waits for state resumes at its change, or fails with a description`() async throws {
        let number = Observed(0)
        let waiting = Task { try await number.wait({ "3, it is \($0)" }) { $0 >= 3 ? $0 * 10 : nil } }
        for _ in 1...3 { number.update { $0 += 1 } }
        #expect(try await waiting.value == 30)
        let error = await #expect(throws: WaitedInVain.self) {
            let _: Int = try await number.wait(deadline: .milliseconds(20), { "9, it is \($0)" }) { $0 == 9 ? $0 : nil }
        }
        #expect(error?.description.contains("9, it is 3") == true)
    }
}
