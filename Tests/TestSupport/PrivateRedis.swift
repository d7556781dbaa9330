import Foundation
import Synchronization
import Testing

/// A redis-server of one's own, on a unix socket and on a free port of the loopback, in a temporary folder. It dies with this process.
package final class PrivateRedis: Sendable {
    package struct Options: Sendable {
        /// Append-only file, synced at every write, so that a killed server has all it answered when it starts again.
        package var appendOnly = false
        /// Further lines of configuration, as command line arguments (`["--maxmemory", "4mb"]`).
        package var arguments: [String] = []
        /// `requirepass`.
        package var password: String?
        package init(appendOnly: Bool = false, arguments: [String] = [], password: String? = nil) {
            self.appendOnly = appendOnly
            self.arguments = arguments
            self.password = password
        }
    }

    package let port: Int
    package let options: Options
    private let folder: TemporaryFolder
    private let child = Mutex<ChildProcess?>(nil)

    package var socketPath: String { folder.file("redis.sock") }
    /// `redis://127.0.0.1:<port>`, with the password if there is one.
    package var url: String { "redis://\(options.password.map { ":\($0)@" } ?? "")127.0.0.1:\(port)" }
    package var socketURL: String { "unix://\(socketPath)" }

    private init(port: Int, options: Options) throws {
        self.port = port
        self.options = options
        folder = try TemporaryFolder("redis")
    }

    /// Starts a server and waits until it answers a PING. The caller owes a `remove()`; `withRedis` and the trait `.redis` see to that.
    package static func start(_ options: Options = Options()) async throws -> PrivateRedis {
        for attempt in 1... {
            let redis = try PrivateRedis(port: Ports.free(), options: options)
            do {
                try await redis.start()
                return redis
            } catch {
                await redis.remove()
                // Another process may have taken the port in between.
                if attempt == 5 { throw error }
            }
        }
        throw RawRedisError(description: "redis-server does not start")
    }

    /// A server that does not run yet, on a port that is kept for it.
    package static func stopped(_ options: Options = Options()) throws -> PrivateRedis {
        try PrivateRedis(port: Ports.free(), options: options)
    }

    package var isRunning: Bool { child.withLock { $0?.isRunning ?? false } }
    package var processID: pid_t? { child.withLock { $0?.processID } }

    /// Starts it again after `stop()` or `kill()`, on the same port and socket, with what its append-only file holds.
    package func start() async throws {
        var arguments = [
            "--port", "\(port)", "--bind", "127.0.0.1", "--unixsocket", socketPath, "--dir", folder.path, "--logfile",
            folder.file("redis.log"),
            "--save", "", "--appendonly", options.appendOnly ? "yes" : "no", "--appendfsync", "always", "--maxmemory-policy", "noeviction",
            "--enable-debug-command", "yes", "--daemonize", "no",
        ]
        if let password = options.password { arguments += ["--requirepass", password] }
        let process = try ChildProcess.spawn("redis-server", arguments + options.arguments, errors: folder.file("stderr"))
        child.withLock { $0 = process }
        let deadline = ContinuousClock.now + .seconds(20)
        // By its own socket: whoever answers there is this server, and it listens on its port by then or has ended.
        while ContinuousClock.now < deadline {
            guard process.isRunning else { break }
            if let connection = try? await RawRedis.connect(unix: socketPath) {
                let answer = try? await connection.send("PING")
                await connection.close()
                switch answer {
                case .simple("PONG"): return
                case .error(let text) where text.hasPrefix("NOAUTH"): return
                default: break
                }
            }
            try await Task.sleep(for: .milliseconds(5))
        }
        await kill()
        throw RawRedisError(description: "redis-server does not answer: \(log.suffix(1_000))")
    }

    /// SIGKILL.
    package func kill() async { await child.withLock { $0 }?.destroy() }

    /// SHUTDOWN, as an operator would (SIGTERM).
    package func stop() async {
        guard let process = child.withLock({ $0 }) else { return }
        process.terminate()
        if await process.wait(deadline: .seconds(10)) == nil { await process.destroy() }
    }

    /// Without an append-only file everything is forgotten.
    package func restart() async throws {
        await stop()
        try await start()
    }

    /// SIGSTOP: connections stay open, nothing is answered.
    package func freeze() { child.withLock { $0 }?.freeze() }
    package func thaw() { child.withLock { $0 }?.thaw() }

    package var log: String { (try? String(contentsOfFile: folder.file("redis.log"), encoding: .utf8)) ?? "" }

    /// Ends it, and its folder goes.
    package func remove() async {
        await kill()
        folder.remove()
    }

    /// A connection that shares no code with the product.
    package func connect() async throws -> RawRedis {
        let connection = try await RawRedis.connect(unix: socketPath)
        if let password = options.password { try await connection.send("AUTH", password) }
        return connection
    }

    /// One command on a connection of its own.
    @discardableResult
    package func command(_ arguments: String...) async throws -> RawReply {
        let connection = try await connect()
        do {
            let reply = try await connection.send(arguments)
            await connection.close()
            return reply
        } catch {
            await connection.close()
            throw error
        }
    }

    @TaskLocal fileprivate static var scoped: PrivateRedis?

    /// The server of the trait `.redis` that the running test or its suite carries.
    package static var current: PrivateRedis {
        guard let scoped else { preconditionFailure("the test or its suite needs the trait .redis") }
        return scoped
    }
}

/// Runs `body` with a server that is gone afterwards, whatever happens.
package func withRedis<Value: Sendable>(
    _ options: PrivateRedis.Options = PrivateRedis.Options(), isolation: isolated (any Actor)? = #isolation,
    _ body: (PrivateRedis) async throws -> Value
) async throws -> Value {
    let redis = try await PrivateRedis.start(options)
    do {
        let value = try await body(redis)
        await redis.remove()
        return value
    } catch {
        await redis.remove()
        throw error
    }
}

/// A private redis-server for a suite (one for all its tests) or for a test; it stands at `PrivateRedis.current`.
package struct RedisTrait: TestTrait, SuiteTrait, TestScoping {
    let options: PrivateRedis.Options

    package func provideScope(for test: Test, testCase: Test.Case?, performing function: @concurrent @Sendable () async throws -> Void)
        async throws
    {
        try await withRedis(options) { redis in
            try await PrivateRedis.$scoped.withValue(redis) { try await function() }
        }
    }
}

extension Trait where Self == RedisTrait {
    package static var redis: Self { RedisTrait(options: PrivateRedis.Options()) }
    package static func redis(_ options: PrivateRedis.Options) -> Self { RedisTrait(options: options) }
}
