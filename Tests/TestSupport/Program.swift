import Foundation

/// Runs other programs and waits for their end.
package enum Program {
    package struct Outcome: Sendable {
        package var status: ExitStatus?
        /// Standard output and standard error together.
        package var output: String
        package var succeeded: Bool { status == .exited(0) }
    }

    /// The path of a program of this name in `PATH`.
    package static func find(_ names: String...) -> String? {
        let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
        for name in names {
            for folder in folders where FileManager.default.isExecutableFile(atPath: "\(folder)/\(name)") { return "\(folder)/\(name)" }
        }
        return nil
    }

    /// - Returns: the output and the status; nil when the program was killed with its children at the deadline.
    package static func run(
        _ executable: String, _ arguments: [String], environment: [String: String]? = nil, deadline: Duration = .testDeadline
    ) async throws -> Outcome {
        let folder = try TemporaryFolder("program")
        defer { folder.remove() }
        let output = folder.file("out")
        let child = try ChildProcess.spawn(executable, arguments, environment: environment, output: output, errors: output)
        let status = await child.wait(deadline: deadline)
        await child.destroy()
        return Outcome(status: status, output: (try? String(contentsOfFile: output, encoding: .utf8)) ?? "")
    }
}

/// A Python virtual environment with third-party packages, created once in the user's cache folder.
package enum PythonPackages {
    /// The interpreter; nil when it cannot be created, because python3 is missing or the package index is unreachable.
    package static var interpreter: String? { get async { await made.value } }

    /// The interpreter of the environment with clients that are built on OpenAI's SDK, which are large; nil when it cannot be created.
    package static var frameworks: String? { get async { await madeFrameworks.value } }

    private static let made = environment(["anthropic", "openai", "websockets"])
    private static let madeFrameworks = environment(
        ["langchain-openai", "litellm", "llm", "openai-agents", "pydantic-ai-slim[openai]"],
        modules: ["agents", "langchain_openai", "llm", "pydantic_ai"])

    /// - Parameter modules: what the packages are imported as; nil: by their names.
    private static func environment(_ packages: [String], modules: [String]? = nil) -> Task<String?, Never> {
        Task {
            guard let python = Program.find("python3") else { return nil }
            let variables = ProcessInfo.processInfo.environment
            let cache = variables["XDG_CACHE_HOME"] ?? variables["HOME"].map { $0 + "/.cache" } ?? NSTemporaryDirectory()
            let name = packages.map { $0.prefix { $0 != "[" } }.joined(separator: "-")
            let folder = "\(cache)/sluice-tests/python-\(name)"
            let own = folder + "/bin/python"
            // Two concurrent test runs may both create it; the second one finds it complete or creates it again.
            do {
                if try await Program.run(own, ["-c", "import \((modules ?? packages).joined(separator: ", "))"]).succeeded { return own }
            } catch {
                // Not created yet.
            }
            do {
                try FileManager.default.createDirectory(atPath: cache + "/sluice-tests", withIntermediateDirectories: true)
                guard try await Program.run(python, ["-m", "venv", folder], deadline: .seconds(180)).succeeded else { return nil }
                let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "10"]
                return try await Program.run(own, install + packages, deadline: .seconds(400)).succeeded ? own : nil
            } catch {
                return nil
            }
        }
    }
}
