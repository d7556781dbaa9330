import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension FaultJourneys {
    /// README, Procfile and container files agree with the executable.
    @Suite struct DeliveryTests {
        private static func text(_ path: String) throws -> String {
            try String(contentsOf: Repository.root.appending(path: path), encoding: .utf8)
        }

        private static let files = ["README.md", "Procfile", "docker/compose.yaml", "docker/Dockerfile"]

        private static func settings() async throws -> Set<String> {
            let outcome = try await Executable.run("config", "check", "--json")
            let json = try JSON(parsing: outcome.output)
            return Set((json["settings"]?.array ?? []).compactMap { $0["name"]?.string })
        }

        @Test func `all named settings exist`() async throws {
            var known = try await Self.settings()
            #expect(known.count > 30)
            // Settings of the tests.
            for file in ["Tests/ChaosTests/ChaosSettings.swift", "Tests/TestSupport/PrivateRedis.swift"] {
                for match in try Self.text(file).matches(of: /SLUICE_(?:CHAOS|TEST)_[A-Z_]*[A-Z]/) { known.insert(String(match.output)) }
            }
            for file in Self.files {
                for match in try Self.text(file).matches(of: /SLUICE_[A-Z_0-9]*[A-Z0-9]/) {
                    #expect(known.contains(String(match.output)), "\(file) names \(match.output)")
                }
            }
        }

        @Test func `all named commands exist`() async throws {
            var commands: Set<String> = []
            for file in Self.files {
                for match in try Self.text(file).matches(of: /sluice ((?:config check|[a-z]+(?:-[a-z]+)?))(?=[ \n`&|)])/) {
                    commands.insert(String(match.output.1))
                }
            }
            for match in try Self.text("docker/compose.yaml").matches(of: /command: \[([a-z]+)[,\]]/) {
                commands.insert(String(match.output.1))
            }
            // The first word of other containers' commands.
            commands.subtract(["redis"])
            #expect(commands.isSuperset(of: ["gateway", "worker", "simulate", "dev", "chat"]), "\(commands)")
            for command in commands {
                let help = try await Executable.run(command.split(separator: " ").map(String.init) + ["--help"])
                #expect(help.status == .exited(0), "sluice \(command)")
            }
        }

        /// Each line with its own settings.
        @Test func `the Procfile has all required settings`() async throws {
            let lines = try Self.text("Procfile").split(separator: "\n")
            #expect(lines.map { $0.prefix { $0 != ":" } } == ["redis", "simulator", "worker", "gateway"])
            for line in lines where line.contains(" worker") || line.contains(" gateway") {
                let words = line.split(separator: " ").map(String.init)
                let node = try #require(words.last)
                let pairs = words.filter { $0.hasPrefix("SLUICE_") }.map { $0.split(separator: "=", maxSplits: 1).map(String.init) }
                let environment = Dictionary(pairs.map { ($0[0], $0[1].contains("$") ? "http://127.0.0.1:9090/v1" : $0[1]) }) { $1 }
                let check = try await Executable.run("config", "check", "--node", node, environment: environment)
                #expect(check.status == .exited(0), "\(line): \(check.errors)")
            }
        }

        @Test func `the compose file has all required settings`() async throws {
            // The environment of a service is a block of NAME: value lines.
            let services = try Self.text("docker/compose.yaml").split(separator: "\n  ").map(String.init)
            for node in ["gateway", "worker"] {
                let block = try #require(try Self.text("docker/compose.yaml").components(separatedBy: "\n  \(node):\n").dropFirst().first)
                let own = block.components(separatedBy: "\n\n")[0]
                var environment: [String: String] = [:]
                for match in own.matches(of: /(SLUICE_[A-Z_]+): (.+)/) {
                    let value = String(match.output.2)
                    environment[String(match.output.1)] = value.firstMatch(of: /^\$\{[A-Z_]+:-(.*)\}$/).map { String($0.output.1) } ?? value
                }
                #expect(environment["SLUICE_REDIS_URL"] == "redis://redis:6379")
                let check = try await Executable.run("config", "check", "--node", node, environment: environment)
                #expect(check.status == .exited(0), "\(node): \(check.errors)")
                #expect(own.contains("replicas: 2") && own.contains("healthcheck"))
            }
            #expect(services.contains { $0.contains("noeviction") && $0.contains("appendonly") })
        }

        @Test func `both stages of the image use one Debian release, and it does not run as root`() throws {
            let lines = try Self.text("docker/Dockerfile").split(separator: "\n").map(String.init)
            let bases = lines.filter { $0.hasPrefix("FROM ") }
            #expect(bases.count == 2 && bases.allSatisfy { $0.contains("bookworm") }, "\(bases)")
            let user = try #require(lines.firstIndex { $0.hasPrefix("USER ") })
            let entry = try #require(lines.firstIndex { $0.hasPrefix("ENTRYPOINT ") })
            #expect(user < entry && !lines[user].contains("root"))
            #expect(lines.contains { $0.contains("--static-swift-stdlib") && $0.contains("-c release") })
            for line in lines where line.hasPrefix("COPY ") && !line.contains("--from") {
                for path in line.split(separator: " ").dropFirst().dropLast() {
                    #expect(FileManager.default.fileExists(atPath: Repository.root.appending(path: String(path)).path), "\(line)")
                }
            }
        }

        @Test func `scripts are executable, and CI installs the optional programs and runs the README's test command`() throws {
            for script in ["docker/install-deps.sh", ".ci/run"] {
                #expect(FileManager.default.isExecutableFile(atPath: Repository.root.appending(path: script).path), "\(script)")
            }
            // Without the mode the optional programs are missing, and the tests that need them fail in CI.
            #expect(try Self.text(".ci/run").contains(/^docker\/install-deps\.sh test$/.anchorsMatchLineEndings()))
            #expect(try Self.text(".ci/run").contains(/^(?:if ! )?swift test\b/.anchorsMatchLineEndings()))
            #expect(try Self.text("README.md").contains("docker/install-deps.sh && swift test\n"))
            #expect(try Self.text("README.md").contains("docker/install-deps.sh && swift run -c release sluice dev\n"))
        }
    }
}
