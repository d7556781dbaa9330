import ArgumentParser
import JSONCodec

struct ChatCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chat",
        abstract: "Talk to a model through a gateway, in the terminal.",
        discussion: """
            Without a prompt every line of standard input is a question. Ctrl-C stops the answer that is being written and shows what that saved; at the \
            prompt, Ctrl-C or Ctrl-D leaves. The gateway is that of --url, else the one that SLUICE_LISTEN names, else 127.0.0.1:8080.
            """)

    @Argument(help: "One question; leaves after its answer.") var prompt: String?
    @Option(name: .long, help: ArgumentHelp("The gateway's WebSocket.", valueName: "ws://host:port/path")) var url: String?
    @Option(name: .long, help: "The key to come in with (SLUICE_API_KEY says it without showing it to other users of the machine).")
    var key: String?
    @Option(name: .long, help: "The model to ask; else the gateway's default.") var model: String?
    @OptionGroup var settings: SettingsOptions
    @Flag(name: .long, help: "Print every message of the gateway as a line of JSON, and the receipt of an interrupt.") var json = false

    func validate() throws {
        if let url, ChatAddress(url) == nil { throw ValidationError("--url wants an address such as ws://127.0.0.1:8080, not \"\(url)\".") }
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
