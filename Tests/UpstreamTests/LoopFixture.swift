import Contract
import JSONCodec
import Logging
import NIOConcurrencyHelpers
import Support
import Testing

@testable import CurlTransport
@testable import Upstream

/// A client on its own loop, and an actor that is isolated to the loop as in the worker.
actor Caller: PinnedActor {
    nonisolated let loop: EpollLoop
    nonisolated var executor: EpollLoop { loop }
    nonisolated let sockets = UpstreamSockets()
    let client: UpstreamClient
    /// The call of a recognition or retrieval upstream.
    var service: ServiceCall?

    static func make(settings: TransportSettings = .forTests) async throws -> Caller {
        let loop = try EpollLoop(name: "test")
        loop.start()
        return try await Caller(loop: loop, settings: settings)
    }

    private init(loop: EpollLoop, settings: TransportSettings) async throws {
        self.loop = loop
        client = try UpstreamClient(loop: loop, settings: settings, sockets: sockets, logger: Logger(label: "test"))
    }

    /// Runs `body` with a caller, whose sockets and thread are closed afterwards.
    static func with<Value: Sendable>(
        settings: TransportSettings = .forTests, _ body: @Sendable (Caller) async throws -> Value
    ) async throws -> Value {
        let caller = try await Caller.make(settings: settings)
        let result: Result<Value, any Error>
        do { result = .success(try await body(caller)) } catch { result = .failure(error) }
        await caller.shutDown()
        return try result.get()
    }

    private func shutDown() {
        client.close()
        loop.stop()
    }

    var openCalls: Int { client.openCalls }
    var heldTransfers: Int { client.multi.held }

    /// Starts a call and waits for its end.
    func ask(
        _ upstream: UpstreamConfiguration, _ request: GenerationRequest = .hello,
        _ react: @escaping (Recorder, Recorder.Step) -> Void = { _, _ in }
    ) async throws -> Recording {
        let recorder = Recorder(react)
        recorder.call = try client.start(request, on: upstream, receiver: recorder)
        return await withCheckedContinuation { recorder.waiter = $0 }
    }

    /// Sets `UpstreamClient.drainTime`.
    func drain(for time: Duration) { client.drainTime = time }

    func begin(_ upstream: UpstreamConfiguration, _ recorder: Recorder, _ request: GenerationRequest = .hello) throws {
        recorder.call = try client.start(request, on: upstream, receiver: recorder)
    }

    func cancel(_ recorder: Recorder) { recorder.cancel() }

    func isConnected(_ recorder: Recorder) -> Bool { recorder.recording.connected > 0 }

    func result(of recorder: Recorder) -> UpstreamResult? { recorder.recording.result }

    /// Waits for the end of a started call.
    func end(of recorder: Recorder) async -> Recording {
        if recorder.recording.result != nil { return recorder.recording }
        return await withCheckedContinuation { recorder.waiter = $0 }
    }

    func run<Value: Sendable>(_ body: @Sendable (isolated Caller) throws -> Value) rethrows -> Value { try body(self) }
}

struct Recording: Sendable {
    var connected = 0
    var outputs: [UpstreamOutput] = []
    var chunks = 0
    var result: UpstreamResult?

    var text: String { outputs.reduce(into: "") { if case .text(let text) = $1 { $0 += text } } }
    var failure: UpstreamFailure? { if case .failed(let failure) = result { failure } else { nil } }
}

/// Records the callbacks of a call. Used on the loop only, although tests hold references on other threads.
final class Recorder: UpstreamReceiver, @unchecked Sendable {
    enum Step { case connected, produced, ended }

    var recording = Recording()
    var call: UpstreamCall?
    var waiter: CheckedContinuation<Recording, Never>?
    private let react: (Recorder, Step) -> Void

    init(_ react: @escaping (Recorder, Step) -> Void = { _, _ in }) { self.react = react }

    func upstreamConnected() {
        recording.connected += 1
        react(self, .connected)
    }

    func upstreamProduced(_ outputs: [UpstreamOutput], chunks: Int) {
        recording.outputs += outputs
        recording.chunks += chunks
        react(self, .produced)
    }

    func upstreamEnded(_ result: UpstreamResult) {
        #expect(recording.result == nil, "ended twice")
        recording.result = result
        react(self, .ended)
        finish()
    }

    func finish() {
        waiter?.resume(returning: recording)
        waiter = nil
    }

    func cancel() {
        call?.cancel()
        finish()
    }
}

extension GenerationRequest {
    static var hello: GenerationRequest {
        GenerationRequest(
            jobID: JobID("p0-test")!,
            body: JSONObject([
                .init(name: "model", value: "qwen-plus"), .init(name: "messages", value: [["role": "user", "content": "hello"]]),
            ]))
    }
}

extension TransportSettings {
    /// A busy machine may take many seconds for a connection.
    static var forTests: TransportSettings {
        var settings = TransportSettings()
        settings.connectTimeout = .seconds(60)
        return settings
    }
}

extension UpstreamConfiguration {
    static func at(_ url: String, kind: Kind = .openai, key: String? = "sk-secret-canary") -> UpstreamConfiguration {
        UpstreamConfiguration(name: "test", kind: kind, url: url, key: key)
    }
}
