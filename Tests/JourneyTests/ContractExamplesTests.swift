import Foundation
import TestSupport
import Testing

/// The example programs of the Contract catalog.
enum ContractExample: String, CaseIterable {
    case httpPython = "http_client.py"
    case redisPython = "redis_client.py"
    case webSocketPython = "websocket_client.py"
    case httpNode = "http_client.mjs"
    case redisNode = "redis_client.mjs"

    private static let catalog = Repository.root.appending(path: "Sources/Contract/Contract.docc")

    var url: URL { Self.catalog.appending(path: "Resources/\(rawValue)") }

    static var article: String {
        get throws { try String(contentsOf: catalog.appending(path: "ClientExamples.md"), encoding: .utf8) }
    }

    var language: String { rawValue.hasSuffix(".py") ? "python" : "javascript" }
    private var interpreterName: String { rawValue.hasSuffix(".py") ? "python3" : "node" }
    var interpreter: String? { Program.find(interpreterName) }

    /// Command line arguments before the model.
    func arguments(_ lab: Lab, gateway: Node) -> [String] {
        switch self {
        case .httpPython, .httpNode: ["http://127.0.0.1:\(gateway.port)", lab.key]
        case .redisPython, .redisNode: ["127.0.0.1", "\(lab.redis.port)"]
        case .webSocketPython: ["127.0.0.1", "\(gateway.port)", lab.key]
        }
    }
}

extension Journeys {
    /// Runs the example programs of the Contract catalog against real processes.
    struct ContractExamplesTests {
        private static let tokens = 200

        @Test func `the article contains the programs unchanged`() throws {
            let article = try ContractExample.article
            for example in ContractExample.allCases {
                let program = try String(contentsOf: example.url, encoding: .utf8)
                #expect(article.contains("```\(example.language)\n\(program)```\n"), "\(example.rawValue)")
            }
        }

        @Test(
            .enabled("needs python3") { Program.find("python3") != nil },
            arguments: [ContractExample.httpPython, .redisPython, .webSocketPython])
        func `a Python client submits, follows, resumes and interrupts`(example: ContractExample) async throws { try await run(example) }

        @Test(.enabled("needs node") { Program.find("node") != nil }, arguments: [ContractExample.httpNode, .redisNode])
        func `a Node client submits, follows, resumes and interrupts`(example: ContractExample) async throws { try await run(example) }

        private func run(_ example: ContractExample) async throws {
            let interpreter = try #require(example.interpreter)
            try await withLab { lab in
                _ = try await lab.worker()
                let gateway = try await lab.gateway()
                let model = lab.model("sim-n\(Self.tokens)-g10")
                let outcome = try await Program.run(
                    interpreter, [example.url.path] + example.arguments(lab, gateway: gateway) + [model],
                    environment: Executable.environment, deadline: .seconds(150))
                #expect(outcome.succeeded, "\(outcome.output.suffix(4_000))")
                let whole = SimulatorText.tokens(Self.tokens).count
                #expect(outcome.output.contains(": \(whole) characters"), "\(outcome.output)")
                #expect(outcome.output.contains("interrupted: USER_STOP while streaming"), "\(outcome.output)")
                let requests = try await lab.upstream().of(model: model)
                #expect(requests.map(\.end) == [.done, .clientClosed])
            }
        }
    }
}
