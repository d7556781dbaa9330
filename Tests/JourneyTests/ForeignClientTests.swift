import Foundation
import TestSupport
import Testing

extension Journeys {
    /// Third-party clients with real processes.
    @Suite(.enabled("needs python3 and, the first time, network access to PyPI") { await PythonPackages.interpreter != nil })
    struct ForeignClientTests {
        private func run(_ script: ScriptFile, _ arguments: [String]) async throws {
            try await script.run(python: #require(await PythonPackages.interpreter), arguments)
        }

        @Test func `an unmodified OpenAI SDK works, and its disconnect interrupts`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1", ["SLUICE_RETRIES": "0"])
                let gateway = try await lab.gateway("g1", ["SLUICE_DEFAULT_MODEL": "house-model"])
                let (left, hung) = (lab.model("sim-n3000-g10"), lab.model("sim-n3000-g10-f20000"))
                try await run(
                    .openAIClient,
                    ["http://127.0.0.1:\(gateway.port)/v1", lab.key, "sim-n20-g1", "sim-n50-g5", "sim-n3-g1-t", left, hung])
                for model in [left, hung] {
                    #expect(try await lab.endedRequest(model: model).end == .clientClosed, "\(model)")
                    let request = try await lab.endedRequest(model: model)
                    try await until("the record of \(model)") { try await lab.record(request.tag)["state"] == "interrupted" }
                    #expect(try await lab.record(request.tag)["reason"] == "CLIENT_GONE")
                }
            }
        }

        @Test func `an unmodified Anthropic SDK works, and its disconnect interrupts`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1", ["SLUICE_RETRIES": "0"])
                let gateway = try await lab.gateway()
                let (left, hung) = (lab.model("sim-n3000-g10"), lab.model("sim-n3000-g10-f20000"))
                try await run(
                    .anthropicClient,
                    ["http://127.0.0.1:\(gateway.port)", lab.key, "sim-n20-g1", "sim-n5-g1-r", "sim-n3-g1-t", left, hung])
                for model in [left, hung] {
                    #expect(try await lab.endedRequest(model: model).end == .clientClosed, "\(model)")
                }
            }
        }

        @Test func `the OpenAI SDK creates, streams, resumes, cancels and deletes responses on two gateways`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1", ["SLUICE_RETRIES": "0"])
                let (first, second) = (try await lab.gateway("g1"), try await lab.gateway("g2"))
                let (slow, left) = (lab.model("sim-n3000-g20"), lab.model("sim-n3000-g20"))
                try await run(
                    .responsesClient,
                    [
                        "http://127.0.0.1:\(first.port)/v1", "http://127.0.0.1:\(second.port)/v1", lab.key, lab.otherKey, "sim-n20-g1",
                        "sim-n5-g1-r", "sim-n3-g1-t", slow, left, "sim-n100-g10",
                    ])
                for model in [slow, left] {
                    #expect(try await lab.endedRequest(model: model).end == .clientClosed, "\(model)")
                }
            }
        }

        @Test func `a response whose gateway is killed is resumed on another one`() async throws {
            try await withLab { lab in
                _ = try await lab.worker()
                let (first, second) = (try await lab.gateway("g1"), try await lab.gateway("g2"))
                let ready = lab.folder.file("ready")
                async let resumed: Void = run(
                    .responsesResume,
                    [
                        "http://127.0.0.1:\(first.port)/v1", "http://127.0.0.1:\(second.port)/v1", lab.key, "sim-n400-g10", "400", ready,
                    ])
                try await until("the stream to run") { FileManager.default.fileExists(atPath: ready) }
                await first.kill9()
                try await resumed
            }
        }

        @Test func `the OpenAI SDK converses in real time, and receives webhooks`() async throws {
            try await withLab { lab in
                let simulator = "http://127.0.0.1:\(lab.simulator.port)/v1"
                let port = Ports.free()
                let settings: [String: String?] = [
                    "SLUICE_RETRIES": "0", "SLUICE_SPEECH_URL": simulator, "SLUICE_RECOGNITION_URL": simulator,
                    "SLUICE_WEBHOOK_URL": "http://127.0.0.1:\(port)/hook", "SLUICE_WEBHOOK_ALLOW": "127.0.0.1",
                    "SLUICE_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                ]
                _ = try await lab.worker("w1", settings)
                let gateway = try await lab.gateway("g1", ["SLUICE_RECOGNITION_URL": simulator])
                let base = "http://127.0.0.1:\(gateway.port)/v1"
                let (slow, spoken, cancelled) = (lab.model("sim-n3000-g10"), lab.model("sim-n3000-g10"), lab.model("sim-n3000-g20"))
                async let webhooks: Void = run(
                    .webhookReceiver,
                    [base, lab.key, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "\(port)", "sim-n20-g1", cancelled, "sim-e500"])
                try await run(.realtimeClient, [base, lab.key, "sim-n20-g1", "sim-n3-g1-c", slow, spoken])
                try await webhooks
                for model in [slow, spoken, cancelled] {
                    #expect(try await lab.endedRequest(model: model).end == .clientClosed, "\(model)")
                }
            }
        }

        @Test(.enabled("needs network access to PyPI the first time") { await PythonPackages.frameworks != nil })
        func `agents and frameworks built on the SDKs work unmodified`() async throws {
            try await withLab { lab in
                _ = try await lab.worker()
                let gateway = try await lab.gateway()
                let script = ScriptFile.frameworksClient
                let slow = lab.model("sim-n3000-g10")
                try await script.run(
                    python: #require(await PythonPackages.frameworks),
                    ["http://127.0.0.1:\(gateway.port)/v1", lab.key, "sim-n20-g1", "sim-n3-g1-c", slow])
                #expect(try await lab.endedRequest(0, model: slow).end == .clientClosed)
            }
        }

        @Test func `a websockets client sends a request, interrupts, loses its connection and resumes`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1")
                let gateway = try await lab.gateway()
                let model = lab.model("sim-n3000-g10")
                try await run(
                    .webSocketClient,
                    ["ws://127.0.0.1:\(gateway.port)/ws/agent/stream", lab.key, model, "sim-n300-g5", "sim-n20-g1"])
                #expect(try await lab.endedRequest(model: model).end == .clientClosed)
            }
        }
    }
}
