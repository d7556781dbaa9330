import Foundation
import TestSupport
import Testing

extension Journeys {
    /// The chat page in a browser.
    @Suite(
        .enabled("needs chromium and python3 (apt-get install chromium python3)") { Chromium.path != nil && Program.find("python3") != nil }
    )
    struct ChatPageTests {
        /// Screenshots stay here, for people to look at.
        private static let artifacts = NSTemporaryDirectory() + "/sluice-test-artifacts"

        @Test func `types, streams, stops with a receipt, speaks, and goes on after a reload and a break`() async throws {
            let (chromium, python) = (try #require(Chromium.path), try #require(Program.find("python3")))
            try await withLab { lab in
                _ = try await lab.worker(
                    "w1",
                    [
                        "SLUICE_SPEECH_URL": lab.upstreamURL, "SLUICE_SPEECH_KEY": lab.upstreamKey,
                        "SLUICE_SPEECH_MODEL": "sim-n8-g5-speech",
                    ])
                let gateway = try await lab.gateway("g1", ["SLUICE_DEFAULT_MODEL": "house-model"])
                let (stopped, spoken) = (lab.model("sim-n3000-g10"), lab.model("sim-n2000-g5"))
                let outcome = try await Program.run(
                    python,
                    [
                        "-c", ChatPageScript.text, chromium, "http://127.0.0.1:\(gateway.port)/", lab.key, lab.folder.path, stopped,
                        lab.model("sim-n300-g10"), spoken, lab.model("sim-n300-g10"),
                    ], environment: Executable.environment, deadline: .seconds(50))
                #expect(outcome.succeeded && outcome.output.contains("all as it should be"), "\(outcome.output.suffix(4_000))")
                #expect(try await lab.endedRequest(model: stopped).end == .clientClosed)
                #expect(try await lab.endedRequest(model: spoken).end == .clientClosed)
                try FileManager.default.createDirectory(atPath: Self.artifacts, withIntermediateDirectories: true)
                for name in ["stopped.png", "settings.png", "telephone.png", "telephone-empty.png"] {
                    let image = try #require(FileManager.default.contents(atPath: lab.folder.file(name)), "\(name) was taken")
                    try image.write(to: URL(fileURLWithPath: "\(Self.artifacts)/chat-page-\(name)"))
                }
            }
        }
    }
}
