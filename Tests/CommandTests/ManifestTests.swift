import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing
import Yams

/// The files in `docker/` and the Procfile use existing commands, flags, settings and files. The files are parsed; no container engine is
/// used.
@Suite("Dockerfile, compose, manifests and Procfile")
struct ManifestTests {
    private static let root = Repository.root
    private static let kubernetes = ["gateway", "worker", "redis", "scaledobject", "hpa"]

    private static func text(_ path: String) throws -> String {
        try String(contentsOf: root.appending(path: path), encoding: .utf8)
    }

    /// One place where `sluice` is started.
    private struct Start {
        let place: String
        var arguments: [String]
        var environment: [String: String]
    }

    // MARK: places that start sluice

    private static func composeStarts() throws -> [Start] {
        let compose = try #require(try Yams.load(yaml: text("docker/compose.yaml")) as? [String: Any])
        let services = try #require(compose["services"] as? [String: [String: Any]])
        return try services.filter { $0.value["image"] as? String == "sluice" }.map { name, service in
            let environment = service["environment"] as? [String: Any] ?? [:]
            return Start(
                place: "compose \(name)", arguments: try #require(service["command"] as? [String]),
                environment: environment.mapValues { expanded("\($0)") })
        }
    }

    /// Expands `${NAME:-value}` to the default value.
    private static func expanded(_ text: String) -> String { text.replacing(/\$\{[A-Z_]+:-([^}]*)\}/) { String($0.output.1) } }

    private static func procfileStarts() throws -> [Start] {
        try text("Procfile").split(separator: "\n").compactMap { line in
            let parts = try #require(line.firstMatch(of: /^([a-z]+): (.*)$/), "\(line)")
            var words = expanded(String(parts.output.2)).split(separator: " ").map(String.init)
            if words.first == "env" { words.removeFirst() }
            var environment: [String: String] = [:]
            while let word = words.first, let match = word.wholeMatch(of: /([A-Z_]+)=(.*)/) {
                environment[String(match.output.1)] = String(match.output.2)
                words.removeFirst()
            }
            guard words.first == ".build/release/sluice" else { return nil }
            return Start(place: "Procfile \(parts.output.1)", arguments: Array(words.dropFirst()), environment: environment)
        }
    }

    private static func documents(_ name: String) throws -> [[String: Any]] {
        try Yams.load_all(yaml: text("docker/kubernetes/\(name).yaml")).compactMap { $0 as? [String: Any] }
    }

    private static func pods() throws -> [(kind: String, name: String, spec: [String: Any])] {
        try kubernetes.flatMap { try documents($0) }.compactMap { document in
            guard let kind = document["kind"] as? String, kind == "Deployment" || kind == "StatefulSet" else { return nil }
            let name = try #require((document["metadata"] as? [String: Any])?["name"] as? String)
            let template = try #require((document["spec"] as? [String: Any])?["template"] as? [String: Any])
            return (kind, name, try #require(template["spec"] as? [String: Any]))
        }
    }

    private static func containers(_ pod: [String: Any]) throws -> [[String: Any]] { try #require(pod["containers"] as? [[String: Any]]) }

    private static func environment(_ container: [String: Any]) throws -> [String: String] {
        var environment: [String: String] = [:]
        for variable in container["env"] as? [[String: Any]] ?? [] {
            let name = try #require(variable["name"] as? String)
            // Values from secrets and config maps are replaced by values of the right form.
            environment[name] =
                variable["value"] as? String ?? (name == "SLUICE_API_KEYS" ? "tenant:key-of-sixteen-bytes" : "\(name)-from-elsewhere")
        }
        return environment
    }

    private static func kubernetesStarts() throws -> [Start] {
        var starts: [Start] = []
        for pod in try pods() {
            for container in try containers(pod.spec) where container["image"] as? String == "sluice" {
                let environment = try environment(container)
                starts.append(
                    Start(place: "\(pod.name)", arguments: try #require(container["args"] as? [String]), environment: environment))
                let hook = ((container["lifecycle"] as? [String: Any])?["preStop"] as? [String: Any])?["exec"] as? [String: Any]
                let command = try #require(hook?["command"] as? [String], "\(pod.name) has a preStop")
                if let script = command.last, let words = script.firstMatch(of: /sluice ([a-z -]+)/)?.output.1 {
                    starts.append(
                        Start(place: "\(pod.name)'s preStop", arguments: words.split(separator: " ").map(String.init), environment: [:]))
                }
            }
        }
        return starts
    }

    // MARK: tests

    /// docker-compose 1.29, which Debian 12 ships, rejects the file for any other element, such as `name`.
    @Test func `the compose file has only elements that every Compose version knows`() throws {
        let compose = try #require(try Yams.load(yaml: Self.text("docker/compose.yaml")) as? [String: Any])
        let elements = compose.keys.filter { !$0.hasPrefix("x-") }
        #expect(Set(elements).isSubset(of: ["services", "volumes", "networks", "configs", "secrets"]), "\(elements)")
    }

    @Test func `every command, flag and setting exists`() async throws {
        let starts = try Self.composeStarts() + Self.procfileStarts() + Self.kubernetesStarts()
        #expect(Set(starts.compactMap(\.arguments.first)) == ["gateway", "worker", "simulate", "worker-drain"])
        let listed = try await Executable.run(["config", "check", "--json"])
        let known = Set(try JSON(parsing: listed.output)["settings"]?.array?.compactMap { $0["name"]?.string } ?? [])
        #expect(known.count > 40)
        var helps: [String: String] = [:]
        for start in starts {
            let command = try #require(start.arguments.first)
            if helps[command] == nil { helps[command] = try await Executable.run([command, "--help"]).output }
            #expect(helps[command]?.contains("USAGE: sluice \(command)") == true, "\(start.place): \(command)")
            for flag in start.arguments.dropFirst() where flag.hasPrefix("--") {
                #expect(helps[command]?.contains(flag) == true, "\(start.place): \(flag)")
            }
            for name in start.environment.keys {
                #expect(known.contains(name) || name == "SWIFT_BACKTRACE", "\(start.place): \(name) is no setting")
            }
            // Invalid values are faults, except for files that exist only in the container.
            let values = start.environment.filter { !$0.key.hasSuffix("_FILE") }
            let node = ["gateway", "worker"].contains(command) ? ["--node", command] : []
            let check = try await Executable.run(["config", "check"] + node, environment: values)
            #expect(check.status == .exited(0), "\(start.place): \(check.errors)")
        }
    }

    @Test func `no pod runs as root or is killed before the end of its drain`() throws {
        let pods = try Self.pods()
        #expect(Set(pods.map(\.name)) == ["gateway", "worker", "redis"])
        for pod in pods {
            let security = try #require(pod.spec["securityContext"] as? [String: Any])
            #expect(security["runAsNonRoot"] as? Bool == true && security["runAsUser"] as? Int ?? 0 > 0, "\(pod.name)")
            for container in try Self.containers(pod.spec) {
                let own = try #require(container["securityContext"] as? [String: Any])
                #expect(own["readOnlyRootFilesystem"] as? Bool == true && own["allowPrivilegeEscalation"] as? Bool == false, "\(pod.name)")
                let resources = try #require(container["resources"] as? [String: [String: Any]])
                #expect(resources["limits"]?["memory"] != nil && resources["requests"]?["cpu"] != nil, "\(pod.name)")
                for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                    #expect(container[probe] != nil, "\(pod.name) \(probe)")
                }
                guard container["image"] as? String == "sluice" else { continue }
                // The user of the image.
                #expect(security["runAsUser"] as? Int == 10_001)
                let grace = try #require(pod.spec["terminationGracePeriodSeconds"] as? Int)
                let drain = try #require(Self.environment(container)["SLUICE_DRAIN_TIMEOUT"].flatMap { Int($0.dropLast()) })
                #expect(grace >= drain + 10, "\(pod.name): \(grace) s for a drain of \(drain) s")
                try probesAskItsPort(container, pod.name)
            }
        }
        let kinds = try Self.kubernetes.flatMap { try Self.documents($0) }.compactMap { document -> String? in
            guard let kind = document["kind"] as? String else { return nil }
            return "\(kind) \((document["metadata"] as? [String: Any])?["name"] as? String ?? "")"
        }
        #expect(
            Set(kinds) == [
                "Service redis", "StatefulSet redis", "Service gateway", "Deployment gateway", "PodDisruptionBudget gateway",
                "Deployment worker", "PodDisruptionBudget worker", "ScaledObject worker", "HorizontalPodAutoscaler worker",
            ])
    }

    private func probesAskItsPort(_ container: [String: Any], _ name: String) throws {
        let environment = try Self.environment(container)
        let listens = environment["SLUICE_METRICS_LISTEN"] ?? environment["SLUICE_LISTEN"]
        let port = try #require((container["ports"] as? [[String: Any]])?.first)
        #expect(listens == "0.0.0.0:\(port["containerPort"] as? Int ?? 0)", "\(name)")
        for (probe, path) in [("startupProbe", "/healthz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")] {
            let asked = (container[probe] as? [String: Any])?["httpGet"] as? [String: Any]
            #expect(asked?["path"] as? String == path && asked?["port"] as? String == port["name"] as? String, "\(name) \(probe)")
        }
    }

    @Test func `autoscalers use the demand metric`() throws {
        let scaled = try #require(try Self.documents("scaledobject").first?["spec"] as? [String: Any])
        let trigger = try #require((scaled["triggers"] as? [[String: Any]])?.first?["metadata"] as? [String: Any])
        #expect(trigger["query"] as? String == "max(sluice_slots_wanted)")
        #expect(scaled["minReplicaCount"] as? Int ?? 0 >= 1, "without a worker there is no metric of waiting work")
        let plain = try Self.text("docker/kubernetes/hpa.yaml")
        #expect(plain.contains("metric: {name: sluice_slots_wanted}"))
    }

    @Test func `compose waits for drains and its services exist`() throws {
        let compose = try #require(try Yams.load(yaml: Self.text("docker/compose.yaml")) as? [String: Any])
        let services = try #require(compose["services"] as? [String: [String: Any]])
        for (name, service) in services {
            for needed in (service["depends_on"] as? [String: Any] ?? [:]).keys { #expect(services[needed] != nil, "\(name): \(needed)") }
            #expect(service["healthcheck"] != nil, "\(name) has a health check")
        }
        for name in ["gateway", "worker"] {
            let grace = try #require(services[name]?["stop_grace_period"] as? String)
            #expect(Int(grace.dropLast()) ?? 0 > 25, "\(name): longer than SLUICE_DRAIN_TIMEOUT's 25 s")
        }
        let volumes = try #require(compose["volumes"] as? [String: Any])
        #expect(volumes["redis"] != nil)
    }

    @Test func `the image runs the executable`() async throws {
        let text = try Self.text("docker/Dockerfile")
        // The user that the manifests use.
        #expect(text.contains("\nUSER sluice\n") && text.contains("--uid 10001"))
        let command = try #require(text.firstMatch(of: /\nENTRYPOINT (\[.*\])\nCMD (\[.*\])/))
        #expect(try JSON(parsing: String(command.output.1)) == ["/usr/local/bin/sluice"])
        let arguments = try JSON(parsing: String(command.output.2)).array?.compactMap(\.string) ?? []
        #expect(try await Executable.run(arguments).status == .exited(0))
    }
}
