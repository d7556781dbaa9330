import Glibc
import OperatorTools
import Subprocess
import Support
import SystemPackage

/// A node in a child process that runs this executable. It ends with this process, even after SIGKILL, by the same means as
/// `PrivateRedis`.
struct ChildNode: Sendable {
    let name: String
    let pid: Int

    /// The shell script. Its arguments are the log file, the file for the process id, the limit of open files and the command.
    private static let supervisorScript = """
        log=$1; pids=$2; descriptors=$3; shift 3
        if [ "$descriptors" ]; then ulimit -n "$descriptors"; fi
        "$@" >"$log" 2>&1 &
        child=$!
        echo "$child" >"$pids"
        end() { trap '' TERM HUP INT; kill -TERM "$child" 2>/dev/null; wait "$child" 2>/dev/null; exit 0; }
        trap end TERM HUP INT
        while read -r line; do :; done
        end
        """

    /// Starts `sluice <arguments>`, calls `body` when the node is ready and ends the node afterwards.
    /// - Parameters:
    ///   - settings: all SLUICE_ settings of the node.
    ///   - environment: its other environment variables; names that begin with `SLUICE_` are ignored.
    ///   - folder: contains the node's log, which is shown when the node does not become ready.
    ///   - descriptors: the limit of open files; nil: inherited.
    /// - Throws: `CommandFailure` when the node is not ready within 20 s; errors of `body`.
    static func with(
        _ name: String, _ arguments: [String], settings: [String: String], environment: [String: String], folder: String,
        descriptors: Int? = nil,
        isReady: @Sendable () async -> Bool,
        _ body: @escaping @Sendable (ChildNode) async throws -> Void
    ) async throws {
        let (log, pids) = ("\(folder)/\(name).log", "\(folder)/\(name).pid")
        let environment = environment.filter { !$0.key.hasPrefix("SLUICE_") }.merging(settings) { _, new in new }
        var options = PlatformOptions()
        options.processGroupID = 0
        options.teardownSequence = [.gracefulShutDown(allowedDurationToNextStep: .seconds(10))]
        let outcome = try await Subprocess.run(
            .path("/bin/sh"),
            arguments: Arguments(
                ["-c", supervisorScript, "sluice-bench-node", log, pids, descriptors.map(String.init) ?? "", executable] + arguments),
            environment: .custom(Dictionary(uniqueKeysWithValues: environment.map { (Environment.Key(stringLiteral: $0.key), $0.value) })),
            platformOptions: options, input: .inputWriter, output: .discarded, error: .discarded
        ) { _ -> Result<Void, any Error> in
            do {
                let start = ContinuousClock.now
                while !(await isReady()) {
                    guard start.duration(to: .now) < .seconds(20) else {
                        let output = (try? FileContents.read(log, limit: 1 << 20)).map {
                            String(decoding: $0.suffix(2_000), as: UTF8.self)
                        }
                        throw CommandFailure(.failed, "sluice: the \(name) did not become ready within 20 s\n\(output ?? "")")
                    }
                    try await Task.sleep(for: .milliseconds(20))
                }
                let pid = (try? FileContents.readText(pids, limit: 100)).flatMap { Int($0.prefix { $0 != "\n" }) }
                return .success(try await body(ChildNode(name: name, pid: pid ?? 0)))
            } catch {
                return .failure(error)
            }
        }
        try outcome.closureResult.get()
    }

    /// The path of this executable.
    private static let executable = SystemCalls.linkTarget("/proc/self/exe") ?? CommandLine.arguments[0]
}
