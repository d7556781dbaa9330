import Testing
import Upstream
import Worker

@testable import sluice

@Suite("Speech settings") struct SpeechSettingsTests {
    @Test func `speech settings reach the worker`() {
        var reader = SettingsReader(
            SettingsSource(environment: [
                "SLUICE_SPEECH_KIND": "dashscope", "SLUICE_SPEECH_URL": "https://h/api/v1", "SLUICE_SPEECH_KEY": "k",
                "SLUICE_SPEECH_VOICE": "Ethan", "SLUICE_SPEECH_CONCURRENCY": "3",
            ]))
        let worker = reader.worker()
        let speech = worker.speech
        #expect(worker.speechConcurrency == 3)
        #expect(
            speech == SpeechConfiguration(kind: .dashscope, url: "https://h/api/v1", key: "k", model: "qwen3-tts-flash", voice: "Ethan"))
        #expect(reader.faults.isEmpty)
    }

    @Test func `speech is off without a URL`() {
        var none = SettingsReader(SettingsSource(environment: [:]))
        #expect(none.worker().speech == nil && none.faults.isEmpty)
        var half = SettingsReader(SettingsSource(environment: ["SLUICE_SPEECH_KIND": "openai"]))
        #expect(half.worker().speech == nil && half.faults.map(\.name) == ["SLUICE_SPEECH_KIND"])
        var plain = SettingsReader(SettingsSource(environment: ["SLUICE_SPEECH_URL": "http://h/v1"]))
        #expect(plain.worker().speech?.kind == .openai)
    }
}
