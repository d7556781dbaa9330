import Glibc
import NIOCore
import NIOPosix
import RedisClient
import Subprocess
import SystemPackage

/// A redis-server of our own, on a socket in a temporary folder, which does not outlive us however we end.
///
/// A shell stands between: it waits for the end of its standard input, a pipe of which we alone hold the other end. The kernel closes that
/// end when we are gone, be it by kill -9; then the shell ends the server and removes the folder.
struct PrivateRedis: Sendable {
    /// The path of the server's socket.
    let socket: String
    let folder: String

    var url: String { "unix://\(socket)" }

    private static let readyDeadline = TimeAmount.seconds(10)

    /// Without a word about the session's terminal, whose Ctrl-C is for us alone: we say when it is time.
    private static let guardian = """
        folder=$1; shift
        "$@" >"$folder/redis.log" 2>&1 &
        server=$!
        end() { trap '' TERM HUP INT; kill -TERM "$server" 2>/dev/null; wait "$server" 2>/dev/null; rm -rf "$folder"; exit 0; }
        trap end TERM HUP INT
        while read -r line; do :; done
        end
        """

    /// Starts the server, calls `body` when it answers, and ends it afterwards.
    /// - Throws: `CommandFailure`, status 69 when there is no redis-server; what `body` throws.
    static func with(_ body: @escaping @Sendable (PrivateRedis) async throws -> Void) async throws {
        guard let server = executable(["redis-server", "valkey-server"]) else {
            throw CommandFailure(
                .unavailable,
                """
                sluice: sluice dev starts a redis-server of its own, and there is none on this machine.
                Install it (Debian, Ubuntu: apt-get install redis-server; Fedora: dnf install redis; macOS: brew install redis; Alpine: apk add redis), \
                or run nodes against a Redis elsewhere: sluice gateway, sluice worker, with SLUICE_REDIS_URL.
                """)
        }
        let folder = try temporaryFolder()
        let redis = PrivateRedis(socket: folder + "/redis.sock", folder: folder)
        let arguments = [
            "-c", guardian, "sluice-dev-redis", folder, server, "--port", "0", "--unixsocket", redis.socket, "--unixsocketperm", "700",
            "--save", "", "--appendonly", "no", "--dir", folder, "--maxmemory-policy", "noeviction", "--daemonize", "no",
        ]
        var options = PlatformOptions()
        // Its own process group: Ctrl-C in the terminal must not end it before the nodes that need it.
        options.processGroupID = 0
        // Not killed outright: the shell would leave the server behind.
        options.teardownSequence = [.gracefulShutDown(allowedDurationToNextStep: .seconds(10))]
        let outcome = try await Subprocess.run(
            .path("/bin/sh"), arguments: Arguments(arguments), platformOptions: options, input: .inputWriter, output: .discarded,
            error: .discarded
        ) { _ -> Result<Void, any Error> in
            do {
                try await redis.waitUntilReady()
                return .success(try await body(redis))
            } catch {
                return .failure(error)
            }
        }
        try outcome.closureResult.get()
    }

    private func waitUntilReady() async throws {
        var settings = RedisSettings()
        settings.commandTimeout = Self.readyDeadline
        let client = RedisClient(
            url: try RedisURL(url), settings: settings, eventLoop: MultiThreadedEventLoopGroup.singleton.next(), name: "dev",
            logger: .silent)
        let connection = Task { await client.run() }
        defer {
            client.shutdown()
            connection.cancel()
        }
        do { _ = try await client.send("PING") } catch {
            let log = (try? FileContents.read(folder + "/redis.log", limit: 1 << 20).get()).map {
                String(decoding: $0.suffix(2_000), as: UTF8.self)
            }
            throw CommandFailure(.unavailable, "sluice: redis-server did not start: \(error.message)\n\(log ?? "")")
        }
    }

    private static func executable(_ names: [String]) -> String? {
        let path = getenv("PATH").map { String(cString: $0) } ?? "/usr/bin:/bin"
        let folders: [String] = path.split(separator: ":").map { String($0) } + ["/usr/sbin", "/usr/local/bin", "/opt/homebrew/bin"]
        for name in names {
            for folder in folders {
                let file = "\(folder)/\(name)"
                if access(file, X_OK) == 0 { return file }
            }
        }
        return nil
    }

    /// Only ours, and short: the path of a socket has at most 107 bytes.
    private static func temporaryFolder() throws -> String {
        let given = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
        let base = given.utf8.count <= 60 && access(given, W_OK) == 0 ? given : "/tmp"
        var template = Array("\(base)/sluice-dev-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else {
            throw CommandFailure(.failed, "sluice: no temporary folder can be made in \(base): \(String(cString: strerror(errno)))")
        }
        return String(decoding: template.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
