import ArgumentParser
import JSONCodec
import OperatorTools

/// `sluice chat`: a terminal client of a gateway.
struct ChatCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chat",
        abstract: "Chat with a model through a gateway, in the terminal.",
        discussion: """
            Without a prompt argument, every line of standard input is a prompt. Ctrl-C interrupts the running answer and shows how many tokens that \
            saved; at the prompt, Ctrl-C or Ctrl-D quits. The gateway's address is --url, else SLUICE_LISTEN, else 127.0.0.1:8080.
            """)

    @Argument(help: "A single prompt; the command ends after its answer.") var prompt: String?
    @Option(name: .long, help: ArgumentHelp("The gateway's WebSocket address.", valueName: "ws://host:port/path")) var url: String?
    @Option(name: .long, help: "The API key (SLUICE_API_KEY keeps it out of the process list).")
    var key: String?
    @Option(name: .long, help: "The model (default: the gateway's default model).") var model: String?
    @OptionGroup var settings: SettingsOptions
    @Flag(name: .long, help: "Print every message of the gateway and the receipt of an interrupt as lines of JSON.") var json = false

    func validate() throws {
        if let url, ChatAddress(url) == nil {
            throw ValidationError("--url must be an address such as ws://127.0.0.1:8080, not \"\(url)\".")
        }
        if let prompt, prompt.allSatisfy(\.isWhitespace) { throw ValidationError("The prompt is empty.") }
    }

    func run() async throws {
        var reader = SettingsReader(settings.source)
        let listen = reader.address("SLUICE_LISTEN")
        let key = self.key ?? reader.text("SLUICE_API_KEY")
        try reader.finish()
        let address = url.flatMap { ChatAddress($0) } ?? ChatAddress(listening: listen ?? ListenAddress(host: "127.0.0.1", port: 8_080))
        try await ChatSession(address: address, key: key, model: model, prompt: prompt, printsJSON: json).run()
    }
}
