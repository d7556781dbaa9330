import Foundation
import TestSupport

/// Runs `sluice` with a list of arguments and waits for its end.
enum CommandRun {
    struct Outcome {
        var status: ExitStatus
        var output: String
        var errors: String
    }

    struct Unfinished: Error, CustomStringConvertible {
        let description: String
    }

    static func run(_ arguments: [String], _ environment: [String: String] = [:], deadline: Duration = .testDeadline) async throws
        -> Outcome
    {
        let folder = try TemporaryFolder()
        defer { folder.remove() }
        let child = try ChildProcess.spawn(
            Executable.path, arguments, environment: Executable.environment.merging(environment) { $1 }, output: folder.file("out"),
            errors: folder.file("err"))
        let status = await child.wait(deadline: deadline)
        await child.destroy()
        func text(_ name: String) -> String { (try? String(contentsOfFile: folder.file(name), encoding: .utf8)) ?? "" }
        guard let status else {
            throw Unfinished(description: "sluice \(arguments) did not end within \(deadline): \(text("out")) \(text("err"))")
        }
        return Outcome(status: status, output: text("out"), errors: text("err"))
    }
}
