import Foundation
import NIOCore
import Support
import Synchronization

/// The executable under test.
package enum Executable {
    /// `SLUICE_BIN`, else the `sluice` next to the running test bundle.
    package static let path: String = {
        if let path = ProcessInfo.processInfo.environment["SLUICE_BIN"] { return path }
        let own = SystemCalls.linkTarget("/proc/self/exe") ?? ""
        return (own as NSString).deletingLastPathComponent + "/sluice"
    }()

    /// This process's environment without variables that configure a node or redirect its connections.
    package static var environment: [String: String] {
        // SwiftPM sets NO_COLOR for tests without a terminal.
        ProcessInfo.processInfo.environment.filter { name, _ in
            !name.hasPrefix("SLUICE_") && !name.lowercased().hasSuffix("_proxy") && name != "NO_COLOR"
        }
    }

    package struct Outcome: Sendable {
        package var status: ExitStatus
        package var output: String
        package var errors: String
    }

    package static func run(_ arguments: String..., environment: [String: String] = [:], input: String? = nil) async throws -> Outcome {
        try await run(arguments, environment: environment, input: input)
    }

    /// Runs `sluice` with these arguments and waits for its end.
    package static func run(
        _ arguments: [String], environment: [String: String] = [:], input: String? = nil, deadline: Duration = .testDeadline
    ) async throws -> Outcome {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        if let input { try Data(input.utf8).write(to: URL(fileURLWithPath: folder.file("in"))) }
        let child = try ChildProcess.spawn(
            path, arguments, environment: Self.environment.merging(environment) { $1 },
            input: input.map { _ in .file(folder.file("in")) } ?? .null,
            output: folder.file("out"), errors: folder.file("err"))
        let status = await child.wait(deadline: deadline)
        await child.destroy()
        func text(_ name: String) -> String { (try? String(contentsOfFile: folder.file(name), encoding: .utf8)) ?? "" }
        guard let status else {
            throw WaitedInVain(
                description:
                    "sluice \(arguments.joined(separator: " ")) did not end within \(deadline)\n\(text("out").suffix(2_000))\(text("err").suffix(2_000))"
            )
        }
        return Outcome(status: status, output: text("out"), errors: text("err"))
    }
}

/// A long-running `sluice` process: a gateway, a worker, the simulator or `sluice dev`. Its standard error and output go to one file.
package final class Node: Sendable {
    package let name: String
    package let arguments: [String]
    package let environment: [String: String]
    /// The port of its HTTP listener.
    package let port: Int
    package let logPath: String
    private let state = Mutex(State())

    private struct State {
        var child: ChildProcess?
        /// Whether the test requested the end of the process.
        var endExpected = false
    }

    package init(name: String, arguments: [String], environment: [String: String], port: Int, logPath: String) {
        self.name = name
        self.arguments = arguments
        self.environment = environment
        self.port = port
        self.logPath = logPath
    }

    /// Starts the process, also again after its end.
    package func start() throws {
        let child = try ChildProcess.spawn(Executable.path, arguments, environment: environment, output: logPath, errors: logPath)
        state.withLock { $0 = State(child: child) }
    }

    private var child: ChildProcess? { state.withLock { $0.child } }
    package var isRunning: Bool { child?.isRunning ?? false }
    package var processID: pid_t? { child?.processID }
    package var endedUnasked: Bool { state.withLock { !$0.endExpected && $0.child.map { !$0.isRunning } ?? false } }

    /// The last 4 MB of its log.
    package var log: String {
        guard let file = FileHandle(forReadingAtPath: logPath) else { return "" }
        let size = (try? file.seekToEnd()) ?? 0
        try? file.seek(toOffset: size > 4 << 20 ? size - 4 << 20 : 0)
        let data = (try? file.readToEnd()) ?? nil
        try? file.close()
        return String(decoding: data ?? Data(), as: UTF8.self)
    }

    /// Waits until its log contains a text: nodes write their logs behind their work.
    package func logs(_ text: String) async throws {
        try await until("\(name) to log: \(text)") { log.contains(text) }
    }

    /// Marks an end as expected, for tests that send the signal themselves.
    package func expectCrash() { expectEnd() }

    private func expectEnd() { state.withLock { $0.endExpected = true } }

    package func kill9() async {
        expectEnd()
        child?.signal(SIGKILL)
        _ = await child?.wait()
    }

    /// Sends SIGTERM: the first one drains, the second one stops.
    package func terminate() {
        expectEnd()
        child?.terminate()
    }

    /// Sends SIGINT, like Ctrl-C.
    package func interrupt() {
        expectEnd()
        child?.signal(SIGINT)
    }

    package func freeze() { child?.freeze() }
    package func thaw() { child?.thaw() }

    /// Waits for the end of the process.
    package func ended(within deadline: Duration = .testDeadline) async throws -> ExitStatus {
        guard let child else { throw WaitedInVain(description: "\(name) was never started") }
        guard let status = await child.wait(deadline: deadline) else {
            throw WaitedInVain(description: "\(name) did not end within \(deadline): …\(log.suffix(2_000))")
        }
        return status
    }

    /// Kills the process and its children.
    package func destroy() async {
        expectEnd()
        await child?.destroy()
    }

    package func get(_ path: String, headers: [String: String] = [:]) async throws -> HTTPAnswer {
        try await HTTPCall.get(port, path, headers: headers)
    }

    /// Waits until `path` returns 200. Fails at once when the process ends.
    package func ready(path: String = "/readyz", deadline: Duration = .testDeadline) async throws {
        let ready: Bool
        do {
            ready = try await until("\(name) to be ready (\(path))", deadline: deadline, every: .milliseconds(10)) { () -> Bool? in
                guard isRunning else { return false }
                return try await HTTPCall.get(port, path, deadline: .seconds(10)).status == 200 ? true : nil
            }
        } catch {
            throw WaitedInVain(description: "\(error); its log ends: …\(log.suffix(2_000))")
        }
        guard ready else {
            throw WaitedInVain(
                description: "\(name) ended (\(child?.status.map { "\($0)" } ?? "never started")) before it was ready: \(log.suffix(3_000))"
            )
        }
    }
}
