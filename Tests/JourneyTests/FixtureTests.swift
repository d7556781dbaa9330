import Foundation
import TestSupport
import Testing

@Suite(.redis)
struct FixtureTests {
    @Test func `the suite's server answers on its socket and port`() async throws {
        let redis = PrivateRedis.current
        #expect(try await redis.command("SET", "a", "1") == .simple("OK"))
        let connection = try await RawRedis.connect(port: redis.port)
        #expect(try await connection.send("GET", "a") == .bulk("1"))
        await connection.close()
    }

    @Test(.redis(PrivateRedis.Options(appendOnly: true)))
    func `a killed server with an append-only file keeps its data`() async throws {
        let redis = PrivateRedis.current
        try await redis.command("SET", "kept", "yes")
        await redis.kill()
        #expect(!redis.isRunning)
        try await redis.start()
        #expect(try await redis.command("GET", "kept") == .bulk("yes"))
    }

    @Test func `a test without its program is skipped, but not in CI`() {
        #expect(TestProgram.areUsable([.python], find: { _ in "/usr/bin/it" }, environment: [:]))
        #expect(!TestProgram.areUsable([.python, .chromium], find: { $0 == .python ? "/usr/bin/it" : nil }, environment: [:]))
        #expect(TestProgram.areUsable([.chromium], find: { _ in nil }, environment: ["CI": "true"]))
    }

    @Test func `messages reach a raw subscriber`() async throws {
        let redis = PrivateRedis.current
        let listener = try await redis.connect()
        var messages = try await listener.subscribe("news", "more").makeAsyncIterator()
        #expect(try await redis.command("PUBLISH", "more", "hello") == .integer(1))
        let message = await messages.next()
        #expect(message?.channel == "more" && message?.text == "hello")
        await listener.close()
        #expect(await messages.next() == nil)
    }

    @Test func `a server and its folder are removed after its scope`() async throws {
        let (processID, folder) = try await withRedis { redis in (redis.processID, (redis.socketPath as NSString).deletingLastPathComponent)
        }
        #expect(kill(try #require(processID), 0) == -1)
        #expect(!FileManager.default.fileExists(atPath: folder))
    }

    @Test func `child processes end with a crashed parent`() async throws {
        let folder = try TemporaryFolder()
        let result = await #expect(processExitsWith: .signal(SIGKILL), observing: [\.standardOutputContent]) {
            let child = try ChildProcess.spawn("sleep", ["600"])
            print("child=\(child.processID).")
            fflush(nil)
            kill(getpid(), SIGKILL)
        }
        let text = String(decoding: result?.standardOutputContent ?? [], as: UTF8.self)
        let digits = text.split(separator: "child=").last?.prefix { $0.isNumber }
        let processID = try #require(digits.flatMap { Int32($0) })
        let deadline = ContinuousClock.now + .testDeadline
        while kill(processID, 0) == 0, ContinuousClock.now < deadline { try await Task.sleep(for: .milliseconds(5)) }
        #expect(kill(processID, 0) == -1)
        folder.remove()
    }
}
