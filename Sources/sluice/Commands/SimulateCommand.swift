import ArgumentParser
import Logging
import NIOPosix
import OperatorTools
import ServiceLifecycle
import Simulator

/// `sluice simulate`.
struct SimulateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate",
        abstract: "Run a simulated model provider, for trials, tests and measurements.",
        discussion: """
            The model name sets the behaviour: sim-n50-g20 answers with 50 tokens, one every 20 ms; -f500 waits 500 ms before the first token, -e429 \
            answers with that error, -k10 drops the connection after ten tokens, -h10 stops sending after ten tokens. Other names answer with a paragraph \
            about the prompt. GET /sim/requests lists all requests and their outcome.
            """)

    @OptionGroup var settings: SettingsOptions
    @Option(name: .long, help: ArgumentHelp("The address to listen on.", valueName: "host:port"))
    var listen = "127.0.0.1:9090"

    func validate() throws {
        guard ListenAddress(listen) != nil else {
            throw ValidationError("--listen must be an address such as 127.0.0.1:9090, not \"\(listen)\".")
        }
    }

    func run() async throws {
        let source = settings.source
        var reader = SettingsReader(source)
        let logging = reader.logging()
        try reader.finish()
        guard let address = ListenAddress(listen) else { return }
        let logger = NodeStart.begin(.simulator, name: listen, source: source, logging: logging)
        try await NodeRun(services: [SimulatorService(address: address, logger: logger)], logger: logger).run()
    }
}

/// The simulator as a service. It ends at once on graceful shutdown and on cancellation.
///
/// `run()` throws `CommandFailure` when the address cannot be bound.
struct SimulatorService: Service {
    let address: ListenAddress
    let logger: Logger

    func run() async throws {
        var settings = SimulatorSettings()
        settings.host = address.host
        settings.port = address.port
        let server = SimulatorServer(settings: settings, group: MultiThreadedEventLoopGroup.singleton, logger: logger)
        do {
            _ = try await server.start()
        } catch {
            throw CommandFailure(.failed, "sluice: cannot listen on \(address): \(error)")
        }
        // There is nothing to drain, so a graceful shutdown is a cancellation.
        await cancelWhenGracefulShutdown {
            while !Task.isCancelled { try? await Task.sleep(for: .seconds(86_400)) }
        }
        await server.shutdown()
    }
}
