import Glibc
import JobQueue
import Subprocess
import Support
import SystemPackage

/// A redis-server on a Unix socket in a temporary folder. It ends with this process, even after SIGKILL.
///
/// The server is the child of a shell that reads its standard input, a pipe whose writing end only this process holds. The kernel closes
/// that end when this process ends; then the shell ends the server and removes the folder.
package struct PrivateRedis: Sendable {
    /// The path of the server's socket.
    package let socket: String
    /// The temporary folder, with the server's log.
    package let folder: String

    package var url: String { "unix://\(socket)" }

    /// Timeout for the first PING.
    private static let readyDeadline = Duration.seconds(10)

    /// The shell script. Its arguments are the folder, the server and the server's arguments.
    private static let supervisorScript = """
        folder=$1; shift
        "$@" >"$folder/redis.log" 2>&1 &
        server=$!
        end() { trap '' TERM HUP INT; kill -TERM "$server" 2>/dev/null; wait "$server" 2>/dev/null; rm -rf "$folder"; exit 0; }
        trap end TERM HUP INT
        while read -r line; do :; done
        end
        """

    /// Starts the server, calls `body` when the server answers and ends the server afterwards.
    /// - Throws: `CommandFailure` when the server cannot be started, with status 69 when redis-server is missing; errors of `body`.
    package static func with(_ body: @escaping @Sendable (PrivateRedis) async throws -> Void) async throws {
        guard let server = executable(["redis-server", "valkey-server"]) else {
            throw CommandFailure(
                .unavailable,
                """
                sluice: sluice dev starts a redis-server of its own, but redis-server is not installed on this machine.
                Install it (Debian, Ubuntu: apt-get install redis-server; Fedora: dnf install redis; macOS: brew install redis; Alpine: apk add redis), \
                or use another Redis: run sluice gateway and sluice worker with SLUICE_REDIS_URL.
                """)
        }
        let folder = try temporaryFolder()
        let redis = PrivateRedis(socket: folder + "/redis.sock", folder: folder)
        let arguments = [
            "-c", supervisorScript, "sluice-dev-redis", folder, server, "--port", "0", "--unixsocket", redis.socket, "--unixsocketperm",
            "700",
            "--save", "", "--appendonly", "no", "--dir", folder, "--maxmemory-policy", "noeviction", "--daemonize", "no",
        ]
        var options = PlatformOptions()
        // Its own process group, so that Ctrl-C in the terminal does not end Redis before the nodes that need it.
        options.processGroupID = 0
        // Not SIGKILL, which would leave the server running.
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

    /// Waits for the answer to a PING.
    private func waitUntilReady() async throws {
        do { try await QueueConnection.waitForServer(at: url, timeout: Self.readyDeadline) } catch let error as QueueConnectionError {
            // The log explains the failure; without it there is only the error.
            let log = (try? FileContents.read(folder + "/redis.log", limit: 1 << 20)).map {
                String(decoding: $0.suffix(2_000), as: UTF8.self)
            }
            throw CommandFailure(.unavailable, "sluice: redis-server did not start: \(error.message)\n\(log ?? "")")
        }
    }

    /// The path of the first of these programs that is in `PATH` or a usual folder.
    private static func executable(_ names: [String]) -> String? {
        let path = SystemCalls.environmentValue("PATH") ?? "/usr/bin:/bin"
        let folders: [String] = path.split(separator: ":").map { String($0) } + ["/usr/sbin", "/usr/local/bin", "/opt/homebrew/bin"]
        for name in names {
            for folder in folders {
                let file = "\(folder)/\(name)"
                if SystemCalls.canAccess(file, X_OK) { return file }
            }
        }
        return nil
    }

    /// Creates a folder for this user only. Its path is short, because the path of a Unix socket has at most 107 bytes.
    private static func temporaryFolder() throws -> String {
        let given = SystemCalls.environmentValue("TMPDIR") ?? "/tmp"
        let base = given.utf8.count <= 60 && SystemCalls.canAccess(given, W_OK) ? given : "/tmp"
        guard let folder = SystemCalls.makeTemporaryDirectory("\(base)/sluice-dev-XXXXXX") else {
            throw CommandFailure(.failed, "sluice: cannot create a temporary folder in \(base): \(SystemCalls.errorText())")
        }
        return folder
    }
}
