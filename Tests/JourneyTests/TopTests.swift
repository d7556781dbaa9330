import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension Journeys {
    /// `sluice top` in a terminal.
    @Suite struct TopTests {
        private func start(_ lab: Lab, on terminal: PseudoTerminal, _ environment: [String: String] = [:]) throws -> ChildProcess {
            let own = ["SLUICE_REDIS_URL": lab.redis.url, "TERM": "xterm", "LC_ALL": "C.UTF-8"]
            return try ChildProcess.spawn(
                Executable.path, ["top", "--interval", "100ms"],
                environment: Executable.environment.merging(own) { $1 }.merging(environment) { $1 }, input: .file(terminal.path),
                output: terminal.path, errors: lab.folder.file("top.err"))
        }

        private func shows(_ terminal: PseudoTerminal, _ text: String) async throws {
            try await until("the screen to show \(text)") { terminal.screen.contains { $0.contains(text) } }
        }

        @Test func `shows the deployment, and keys pause, interrupt and drain`() async throws {
            try await withLab { lab in
                let worker = try await lab.worker("w1")
                let front = try await FrontEnd(lab.redis)
                let model = lab.model("sim-n5000-g10")
                let job = try await front.submit(model: model, id: "p0-long")
                try await job.tokens(3)
                let terminal = try PseudoTerminal()
                #expect(terminal.isAsShellsWantIt)
                let top = try start(lab, on: terminal)
                try await shows(terminal, "p0-long")
                try await until("the tokens of the worker") {
                    terminal.screen.contains { $0.contains("w1") && $0.contains("1/256") }
                        && terminal.screen.contains { $0.contains("streaming") }
                }
                #expect(!terminal.isAsShellsWantIt && terminal.screen.count == 24 && terminal.screen.allSatisfy { $0.count <= 80 })

                terminal.type("py")
                try await shows(terminal, "PAUSED")
                #expect(try await lab.redis.command("SMEMBERS", "{sluice}:paused").array?.first?.string == "interactive")
                terminal.type("py")
                try await until("the queue to be resumed") { !terminal.screen.contains { $0.contains("PAUSED") } }

                // Past the queues and the worker to the job.
                terminal.type("\t\ti")
                try await shows(terminal, "Interrupt p0-long?")
                terminal.type("y")
                #expect(try await job.ended()["type"] == "interrupted")
                #expect(try await lab.endedRequest(model: model).end == .clientClosed)

                terminal.resize(columns: 120, rows: 30)
                top.signal(SIGWINCH)
                try await until("a frame of the new size") { terminal.screen.count == 30 }

                // The list of jobs is empty now. The screen shows the cursor.
                try await until("the cursor to be at the worker") {
                    if terminal.screen.contains(where: { $0.hasPrefix("> w1") }) { return true }
                    terminal.type("\t")
                    try await Task.sleep(for: .milliseconds(150))
                    return terminal.screen.contains { $0.hasPrefix("> w1") }
                }
                terminal.type("dy")
                try await shows(terminal, "w1 was asked to drain")
                #expect(try await worker.ended() == .exited(0))
                await worker.destroy()
                try await shows(terminal, "no worker is running")

                terminal.type("q")
                #expect(await top.wait(deadline: .testDeadline) == .exited(0))
                await restored(terminal)
                await top.destroy()
                await front.close()
            }
        }

        @Test func `the terminal is restored after Ctrl-C, SIGTERM and SIGHUP, and Redis may restart`() async throws {
            try await withLab(simulator: false) { lab in
                for (end, extra) in [(nil, [:]), (SIGTERM, ["NO_COLOR": "1"]), (SIGHUP, [:])] as [(Int32?, [String: String])] {
                    let terminal = try PseudoTerminal()
                    let top = try start(lab, on: terminal, extra)
                    try await shows(terminal, "no worker is running")
                    #expect(terminal.output.contains("\u{1B}[1m") == extra.isEmpty, "colours unless NO_COLOR")
                    if end == SIGHUP {
                        await lab.redis.kill()
                        try await shows(terminal, "Redis does not answer")
                        try await lab.redis.start()
                        try await until("the error to disappear") { !terminal.screen.contains { $0.contains("Redis does not answer") } }
                    }
                    if let end { top.signal(end) } else { terminal.type("\u{03}") }
                    #expect(await top.wait(deadline: .testDeadline) == .exited(0))
                    await restored(terminal)
                    await top.destroy()
                }
                // Without a terminal: one snapshot as text, or several as JSON lines.
                let environment = ["SLUICE_REDIS_URL": lab.redis.url]
                let plain = try await Executable.run("top", environment: environment)
                #expect(plain.status == .exited(0) && plain.output.contains("interactive") && !plain.output.contains("\u{1B}"), "\(plain)")
                let lines = try await Executable.run("top", "--json", "--count", "3", "--interval", "100ms", environment: environment)
                let snapshots = try lines.output.split(separator: "\n").map { try JSON(parsing: String($0)) }
                #expect(lines.status == .exited(0) && snapshots.count == 3)
                #expect(snapshots.last?["queues"]?.array?.count == 3 && snapshots.last?["workers"] == [])
            }
        }

        private func restored(_ terminal: PseudoTerminal) async {
            #expect(terminal.isAsShellsWantIt)
            // Its last output may not have passed the terminal yet.
            do {
                try await until("the screen to be restored") { terminal.output.hasSuffix("\u{1B}[?7h\u{1B}[?25h\u{1B}[?1049l") }
            } catch { Issue.record(error) }
        }
    }
}
