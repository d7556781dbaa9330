import Foundation
import Synchronization
import Testing

/// A private redis-server on a Unix socket and a free port of the loopback address, in a temporary folder. It ends with this process.
package final class PrivateRedis: Sendable {
    package struct Options: Sendable {
        /// Uses an append-only file that is synced at every write, so that a killed server restarts with all acknowledged writes.
        package var appendOnly = false
        /// Further configuration as command line arguments (`["--maxmemory", "4mb"]`).
        package var arguments: [String] = []
        /// `requirepass`.
        package var password: String?
        /// The server program.
        package var program: String
        package init(
            appendOnly: Bool = false, arguments: [String] = [], password: String? = nil, program: String = PrivateRedis.executable
        ) {
            self.appendOnly = appendOnly
            self.arguments = arguments
            self.password = password
            self.program = program
        }
    }

    /// The server program of all tests: that of the environment variable SLUICE_TEST_REDIS_SERVER, for example a valkey-server, or redis-server.
    package static let executable = ProcessInfo.processInfo.environment["SLUICE_TEST_REDIS_SERVER"] ?? "redis-server"

    package let port: Int
    package let options: Options
    private let folder: TemporaryFolder
    private let child = Mutex<ChildProcess?>(nil)
    private let frozen = Mutex(false)

    package var socketPath: String { folder.file("redis.sock") }
    /// `redis://127.0.0.1:<port>`, with the password if there is one.
    package var url: String { "redis://\(options.password.map { ":\($0)@" } ?? "")127.0.0.1:\(port)" }
    package var socketURL: String { "unix://\(socketPath)" }

    private init(port: Int, options: Options) throws {
        self.port = port
        self.options = options
        folder = try TemporaryFolder("redis")
    }

    /// Starts a server and waits for the answer to a PING. The caller must call `remove()`; `withRedis` and the trait `.redis` do that.
    package static func start(_ options: Options = Options()) async throws -> PrivateRedis {
        for attempt in 1... {
            let redis = try PrivateRedis(port: Ports.free(), options: options)
            do {
                try await redis.start()
                return redis
            } catch {
                await redis.remove()
                // Another process may have taken the port meanwhile.
                if attempt == 5 { throw error }
            }
        }
        throw RawRedisError(description: "redis-server does not start")
    }

    /// A server that is not running yet, with a reserved port.
    package static func stopped(_ options: Options = Options()) throws -> PrivateRedis {
        try PrivateRedis(port: Ports.free(), options: options)
    }

    package var isRunning: Bool { child.withLock { $0?.isRunning ?? false } }
    /// Whether it runs and is not frozen.
    package var answers: Bool { isRunning && !frozen.withLock { $0 } }
    package var processID: pid_t? { child.withLock { $0?.processID } }

    /// Restarts the server after `stop()` or `kill()`, on the same port and socket, with the contents of its append-only file.
    package func start() async throws {
        var arguments = [
            "--port", "\(port)", "--bind", "127.0.0.1", "--unixsocket", socketPath, "--dir", folder.path, "--logfile",
            folder.file("redis.log"),
            "--save", "", "--appendonly", options.appendOnly ? "yes" : "no", "--appendfsync", "always", "--maxmemory-policy", "noeviction",
            "--daemonize", "no",
        ]
        if let password = options.password { arguments += ["--requirepass", password] }
        let process = try ChildProcess.spawn(options.program, arguments + options.arguments, errors: folder.file("stderr"))
        child.withLock { $0 = process }
        let deadline = ContinuousClock.now + .testDeadline
        // Checked through its own socket, where only this server can answer. It then listens on its port too, or has ended.
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
        // A configuration that it does not know is reported on standard error.
        let errors = (try? String(contentsOfFile: folder.file("stderr"), encoding: .utf8)) ?? ""
        throw RawRedisError(description: "redis-server does not answer: \(log.suffix(1_000))\(errors.suffix(1_000))")
    }

    /// Sends SIGKILL.
    package func kill() async {
        await child.withLock { $0 }?.destroy()
        frozen.withLock { $0 = false }
    }

    /// Stops the server with SIGTERM, as an operator would.
    package func stop() async {
        guard let process = child.withLock({ $0 }) else { return }
        process.terminate()
        if await process.wait(deadline: .testDeadline) == nil { await process.destroy() }
    }

    /// Stops and starts the server. Without an append-only file all data is lost.
    package func restart() async throws {
        await stop()
        try await start()
    }

    /// Sends SIGSTOP: connections stay open, but nothing is answered.
    package func freeze() {
        frozen.withLock { $0 = true }
        child.withLock { $0 }?.freeze()
    }
    package func thaw() {
        child.withLock { $0 }?.thaw()
        frozen.withLock { $0 = false }
    }

    package var log: String { (try? String(contentsOfFile: folder.file("redis.log"), encoding: .utf8)) ?? "" }

    /// Ends the server and removes its folder.
    package func remove() async {
        await kill()
        folder.remove()
    }

    /// Opens a connection that shares no code with the product.
    package func connect() async throws -> RawRedis {
        let connection = try await RawRedis.connect(unix: socketPath)
        if let password = options.password { try await connection.send("AUTH", password) }
        return connection
    }

    /// Sends one command on a connection of its own.
    @discardableResult
    package func command(_ arguments: String...) async throws -> RawReply { try await send(arguments) }

    /// The first number of the version of Redis with which the server is compatible.
    package func majorVersion() async throws -> Int {
        let info = try await command("INFO", "server").string ?? ""
        let version = info.split(whereSeparator: \.isNewline).first { $0.hasPrefix("redis_version:") }?.dropFirst("redis_version:".count)
        return try #require(version.flatMap { Int($0.prefix { $0 != "." }) }, "\(info)")
    }

    @TaskLocal fileprivate static var scoped: PrivateRedis?

    /// The server of the trait `.redis` of the running test or its suite.
    package static var current: PrivateRedis {
        guard let scoped else { preconditionFailure("the test or its suite needs the trait .redis") }
        return scoped
    }
}

/// Runs `body` with a server and removes the server afterwards, also when `body` throws.
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

/// A private redis-server for a test, or one for all tests of a suite, available as `PrivateRedis.current`.
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
