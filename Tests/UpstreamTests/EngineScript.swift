import NIOCore

@testable import CurlTransport
@testable import Upstream

/// What scripted servers of an OpenAI kind say, and one call to them.
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

    /// Asks a server that answers by a script, once.
    static func ask(
        settings: TransportSettings = TransportSettings(), _ script: @escaping RawServer.Script
    ) async throws -> Recording {
        let server = try await RawServer(script)
        let recording = try await Caller.with(settings: settings) { try await $0.ask(.at(server.url)) }
        try await server.stop()
        return recording
    }
}
