import Foundation
import Glibc
import TestSupport
import Testing

@Suite("sluice dev")
struct DevTests {
    /// A running `sluice dev` with its temporary files in a folder of the test.
    private struct Running {
        let folder: TemporaryFolder
        let child: ChildProcess

        init(_ environment: [String: String] = [:]) async throws {
            folder = try TemporaryFolder("dev")
            var variables = Executable.environment.merging(["SLUICE_LISTEN": "127.0.0.1:0"]) { $1 }
            variables["TMPDIR"] = folder.path
            child = try ChildProcess.spawn(
                Executable.path, ["dev"], environment: variables.merging(environment) { $1 }, output: folder.file("out"),
                errors: folder.file("err"))
            let (child, path) = (child, folder.path)
            try await until("sluice dev to be ready") {
                guard child.isRunning else { throw WaitedInVain(description: "it ended: \(Self.text(path + "/err"))") }
                return Self.text(path + "/out").contains("Ctrl-C ends everything.")
            }
        }

        static func text(_ path: String) -> String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }
        var output: String { Self.text(folder.file("out")) }
        var errors: String { Self.text(folder.file("err")) }

        /// The rest of the output line that begins with a label.
        func value(_ word: String) -> String? {
            output.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }.first { $0.hasPrefix(word) }
                .map { $0.dropFirst(word.count).trimmingCharacters(in: .whitespaces) }
        }

        var leftovers: [String] {
            ((try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []).filter { $0.hasPrefix("sluice-dev-") }
        }

        /// Whether the private Redis is running, found by its command line.
        var hasServer: Bool {
            let processes = ((try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []).filter { Int($0) != nil }
            return processes.contains { process in
                guard let data = FileManager.default.contents(atPath: "/proc/\(process)/cmdline") else { return false }
                return String(decoding: data, as: UTF8.self).contains(folder.path + "/sluice-dev-")
            }
        }
    }

    @Test func `dev answers and leaves nothing behind`() async throws {
        let dev = try await Running()
        let url = try #require(dev.value("WebSocket"))
        let chat = try await Executable.run(["chat", "--url", url, "--model", "sim-n5-g1", "hello"])
        #expect(chat.status == .exited(0))
        #expect(chat.output == " w0 w1 w2 w3 w4\n")
        #expect(chat.errors.isEmpty)
        #expect(dev.hasServer)
        dev.child.signal(SIGINT)
        #expect(await dev.child.wait(deadline: .testDeadline) == .exited(0), "\(dev.output)\(dev.errors)")
        #expect(dev.leftovers.isEmpty)
        #expect(!dev.hasServer)
        #expect(dev.errors.isEmpty)
        dev.folder.remove()
    }

    @Test func `a killed dev leaves no server and no folder behind`() async throws {
        let dev = try await Running()
        #expect(dev.hasServer && dev.leftovers.count == 1)
        dev.child.signal(SIGKILL)
        _ = await dev.child.wait()
        try await until("the server and its folder to be gone") { !dev.hasServer && dev.leftovers.isEmpty }
        dev.folder.remove()
    }

    @Test func `a port in use is replaced by the next one with a message`() async throws {
        let first = try await Running()
        let port = try #require(first.value("WebSocket")?.split(separator: ":").last?.prefix { $0 != "/" })
        let second = try await Running(["SLUICE_LISTEN": "127.0.0.1:\(port)"])
        #expect(second.errors.contains("port \(port) is taken"))
        #expect(second.value("WebSocket") != first.value("WebSocket"))
        for dev in [first, second] {
            dev.child.signal(SIGTERM)
            #expect(await dev.child.wait(deadline: .testDeadline) == .exited(0), "\(dev.output)\(dev.errors)")
            dev.folder.remove()
        }
    }

    @Test func `a configured upstream replaces the simulator`() async throws {
        let upstream = try await CannedUpstream.start([])
        let dev = try await Running(["SLUICE_UPSTREAM_URL": upstream.url, "SLUICE_UPSTREAM_KEY": "canary-key"])
        #expect(dev.value("model") == upstream.url)
        #expect(!dev.output.contains("canary-key") && !dev.errors.contains("canary-key"))
        dev.child.signal(SIGINT)
        #expect(await dev.child.wait(deadline: .testDeadline) == .exited(0), "\(dev.output)\(dev.errors)")
        await upstream.close()
        dev.folder.remove()
    }
}
