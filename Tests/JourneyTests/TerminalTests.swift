import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension Journeys {
    /// `sluice dev` and `sluice chat`.
    @Suite struct TerminalTests {
        @Test(arguments: [SIGINT, SIGTERM, SIGKILL])
        func `sluice dev serves a chat and removes its processes and files`(signal: Int32) async throws {
            try await withLab(simulator: false, redisRuns: false) { lab in
                let port = Ports.free()
                let dev = try lab.command("dev", ["dev"], port: port, ["SLUICE_LISTEN": "127.0.0.1:\(port)", "SLUICE_REDIS_URL": nil])
                try await dev.ready()
                try await until("the address of the chat page") { dev.log.contains("http://127.0.0.1:\(port)/") }
                let page = try await dev.get("/")
                #expect(page.status == 200 && page.headers["content-type"]?.hasPrefix("text/html") == true)
                let key = try #require(dev.log.firstMatch(of: /dashboard +http.*  key (\S+)/)?.output.1)
                #expect(try await dev.get("/dashboard/snapshot", headers: ["authorization": "Bearer \(key)"]).status == 200)
                let client = try await lab.client(dev)
                #expect(try await client.request(model: "sim-n5-g1").ended().end == .finished)
                // The default model answers at reading speed.
                let question = try await client.request("What is a sluice?", model: nil)
                try await until("a readable answer") { question.text.count > 40 }
                try await client.interrupt(.string(question.id))
                #expect(try await question.ended().end == .interrupted)
                await client.close()

                let servers = lab.processes().values.filter { $0.contains("redis-server") }
                #expect(!servers.isEmpty, "it brings its own Redis")
                let path = try #require(dev.log.firstMatch(of: /-s (\S+\.sock)/)?.output.1)
                #expect(FileManager.default.fileExists(atPath: String(path)))
                if signal == SIGKILL {
                    await dev.kill9()
                } else {
                    signal == SIGINT ? dev.interrupt() : dev.terminate()
                    #expect(try await dev.ended() == .exited(0))
                }
                try await until("its children to be gone") { lab.processes().isEmpty }
                try await until("its folder to be gone") {
                    !FileManager.default.fileExists(atPath: (String(path) as NSString).deletingLastPathComponent)
                }
            }
        }

        @Test func `sluice dev uses the configured upstream instead of the simulated one`() async throws {
            try await withLab(redisRuns: false) { lab in
                let port = Ports.free()
                let dev = try lab.command(
                    "dev", ["dev"], port: port,
                    [
                        "SLUICE_LISTEN": "127.0.0.1:\(port)", "SLUICE_REDIS_URL": nil, "SLUICE_UPSTREAM_URL": lab.upstreamURL,
                        "SLUICE_UPSTREAM_KEY": lab.upstreamKey,
                    ])
                try await dev.ready()
                let client = try await lab.client(dev)
                let model = lab.model("sim-n5-g1")
                #expect(try await client.request(model: model).ended().end == .finished)
                #expect(try await lab.upstream().of(model: model).count == 1)
            }
        }

        @Test func `sluice chat answers a prompt and the lines of a pipe`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let gateway = try await lab.gateway()
                let url = "ws://127.0.0.1:\(gateway.port)"
                let environment = ["SLUICE_API_KEY": lab.key]
                let single = try await Executable.run("chat", "--url", url, "--model", "sim-n5-g1", "hello", environment: environment)
                #expect(single.status == .exited(0) && single.output.contains(SimulatorText.tokens(5)), "\(single)")
                let piped = try await Executable.run(
                    "chat", "--url", url, "--model", "sim-n4-g1", environment: environment, input: "one\ntwo\n\n")
                #expect(piped.status == .exited(0), "\(piped)")
                #expect(piped.output.components(separatedBy: SimulatorText.tokens(4)).count == 3, "two answers: \(piped)")
                #expect(try await lab.upstream().total == 3)
                let wrong = try await Executable.run("chat", "--url", url, "hello", environment: ["SLUICE_API_KEY": "wrong"])
                #expect(wrong.status == .exited(1) && !wrong.errors.isEmpty, "\(wrong)")
                let unreachable = try await Executable.run("chat", "--url", "ws://127.0.0.1:\(Ports.free())", "hello")
                #expect(unreachable.status == .exited(69), "\(unreachable)")
            }
        }

        @Test func `Ctrl-C in sluice chat interrupts and shows the receipt`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let gateway = try await lab.gateway()
                let model = lab.model("sim-n2000-g10")
                let chat = try lab.command(
                    "chat", ["chat", "--url", "ws://127.0.0.1:\(gateway.port)", "--model", model, "hello"], port: 0,
                    ["SLUICE_API_KEY": lab.key])
                try await until("some output") { chat.log.contains(" w5") }
                chat.interrupt()
                _ = try await chat.ended()
                #expect(try await lab.endedRequest(model: model).end == .clientClosed)
                let receipt = chat.log.suffix(600)
                #expect(receipt.contains("streaming") && receipt.contains("token") && receipt.contains("ms"), "\(receipt)")
            }
        }

        @Test func `every command has help, and wrong usage is status 2`() async throws {
            let commands = [
                "dev", "gateway", "worker", "simulate", "chat", "config check", "status", "top", "bench", "job", "dead", "queue",
                "worker-drain",
            ]
            for command in commands {
                let words = command.split(separator: " ").map(String.init)
                let help = try await Executable.run(words + ["--help"])
                #expect(help.status == .exited(0) && help.output.contains("USAGE"), "\(command): \(help)")
            }
            #expect(try await Executable.run("dance").status == .exited(2))
            #expect(try await Executable.run("gateway", "--dance").status == .exited(2))
        }
    }
}
