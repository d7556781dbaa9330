import Foundation
import TestSupport
import Testing

/// A Python script in the folder `Scripts`. It ends with an exception at the first unexpected result.
enum ScriptFile: String {
    case anthropicClient = "anthropic_client.py"
    case chatPage = "chat_page.py"
    case chatVoice = "chat_voice.py"
    case dashboard = "dashboard.py"
    case frameworksClient = "frameworks_client.py"
    case openAIClient = "openai_client.py"
    case realtimeClient = "realtime_client.py"
    case recognizer = "recognizer.py"
    case responsesClient = "responses_client.py"
    case responsesResume = "responses_resume.py"
    case tlsClient = "tls_client.py"
    case webhookReceiver = "webhook_receiver.py"
    case webSocketClient = "websocket_client.py"

    /// Arguments for the interpreter. `-B`: the script's imports write no byte code into the source folder.
    func arguments(_ arguments: [String]) -> [String] {
        let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Scripts")
        return ["-B", folder.appending(path: rawValue).path] + arguments
    }

    /// Runs the script to its end and records an issue with its output if it failed.
    func run(python: String, _ arguments: [String]) async throws {
        let outcome = try await Program.run(
            python, self.arguments(arguments), environment: Executable.environment, deadline: .seconds(150))
        #expect(outcome.succeeded && outcome.output.contains("all checks passed"), "\(outcome.output.suffix(4_000))")
    }
}
