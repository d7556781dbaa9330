import NIOCore

@testable import CurlTransport
@testable import Upstream

/// Responses of scripted OpenAI servers, and a call to such a server.
enum EngineScript {
    static let token = #"data: {"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}"# + "\n\n"
    static let finish = #"data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"# + "\n\n"
    static let usage = #"data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}"# + "\n\n"
    static let done = "data: [DONE]\n\n"

    static func stream(_ exchange: RawServer.Exchange) {
        exchange.beginStream()
        exchange.chunk(token)
        exchange.chunk(finish)
        exchange.chunk(usage + done)
        exchange.endStream()
    }

    /// Sends one request to a server with a script.
    static func ask(
        settings: TransportSettings = .forTests, _ script: @escaping RawServer.Script
    ) async throws -> Recording {
        let server = try await RawServer(script)
        let recording = try await Caller.with(settings: settings) { try await $0.ask(.at(server.url)) }
        try await server.stop()
        return recording
    }
}
