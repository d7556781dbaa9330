import TestSupport
import Testing

extension Journeys {
    /// The chat page in a browser.
    @Suite(.needs(.chromium, .python)) struct ChatPageTests {
        @Test func `types, streams, stops with a receipt, speaks, and continues after a reload and a lost connection`() async throws {
            try await withLab { lab in
                _ = try await lab.worker(
                    "w1",
                    [
                        "SLUICE_SPEECH_URL": lab.upstreamURL, "SLUICE_SPEECH_KEY": lab.upstreamKey,
                        "SLUICE_SPEECH_MODEL": "sim-n8-g5-speech",
                    ])
                let gateway = try await lab.gateway("g1", ["SLUICE_DEFAULT_MODEL": "house-model"])
                let (stopped, spoken) = (lab.model("sim-n3000-g10"), lab.model("sim-n2000-g5"))
                try await ScriptFile.chatPage.run(
                    python: TestProgram.python.require(),
                    [
                        TestProgram.chromium.require(), "http://127.0.0.1:\(gateway.port)/", lab.key, lab.folder.path, stopped,
                        lab.model("sim-n300-g10"), spoken, lab.model("sim-n300-g10"),
                    ])
                #expect(try await lab.endedRequest(model: stopped).end == .clientClosed)
                #expect(try await lab.endedRequest(model: spoken).end == .clientClosed)
                try Screenshots.keep(["stopped", "settings", "phone", "phone-empty"], of: "chat-page", from: lab.folder)
            }
        }

        @Test(.needs(.espeak)) func `talks, is interrupted by the user's voice, and works without a microphone`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1", ["SLUICE_SPEECH_URL": lab.upstreamURL, "SLUICE_RECOGNITION_URL": lab.upstreamURL])
                let gateway = try await lab.gateway(
                    "g1", ["SLUICE_RECOGNITION_URL": lab.upstreamURL, "SLUICE_API_KEYS": nil, "SLUICE_AUTH": "none"])
                try await ScriptFile.chatVoice.run(
                    python: TestProgram.python.require(),
                    [
                        TestProgram.chromium.require(), "http://127.0.0.1:\(gateway.port)/", lab.folder.path,
                        TestProgram.espeak.require(),
                    ])
                let requests = try await lab.upstream().requests
                #expect(requests.contains { $0.path == "/v1/audio/speech" && $0.end == .clientClosed }, "the voice was interrupted")
                try Screenshots.keep(["held", "hands-free", "voice-phone", "no-microphone"], of: "chat-page", from: lab.folder)
            }
        }
    }
}
