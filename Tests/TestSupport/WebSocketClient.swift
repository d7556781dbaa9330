import Contract
import Foundation
import JSONCodec
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOWebSocket

/// A client of protocol 1.0 that checks every frame it receives.
package final class WebSocketClient: Sendable {
    /// A frame from the server.
    package struct Frame: Sendable {
        package var type: String
        package var payload: JSON
        package var time: Int
    }

    package struct State: Sendable {
        package var session = ""
        /// Frames that belong to no request, until `expect` removes them.
        package var waiting: [Frame] = []
        package var requests: [String: RequestChecker] = [:]
        package var problems: [String] = []
        /// The close code; 1006: closed without a close frame; nil: open.
        package var closeCode: Int?
        package var repliesToHeartbeats = true
        /// Whether the messages are events of the Realtime API, with their type as the frame's type and the whole event as its payload.
        package var isRealtime = false
        fileprivate var isUpgraded = false
    }

    package let state: Observed<State>
    private let channel: any Channel

    private init(channel: any Channel, state: Observed<State>) {
        self.channel = channel
        self.state = state
    }

    package static let path = "/ws/agent/stream"

    /// - Throws: `WaitedInVain` when the server does not upgrade.
    /// - Parameter receiveBuffer: bytes that the kernel keeps while the client does not read; nil: as many as it likes.
    package static func connect(
        port: Int, path: String = path, headers: [String: String] = [:], receiveBuffer: Int? = nil
    ) async throws -> WebSocketClient {
        let state = Observed(State())
        state.update { $0.isRealtime = path.hasPrefix("/v1/realtime") }
        var bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton).connectTimeout(.seconds(120))
        if let receiveBuffer {
            bootstrap = bootstrap.channelOption(.socketOption(.so_rcvbuf), value: SocketOptionValue(receiveBuffer))
        }
        let upgraded: EventLoopFuture<(any Channel)?> =
            try await bootstrap
            .connect(host: "127.0.0.1", port: port) { channel in
                // A server that accepts the connection and sends nothing must not block a test indefinitely.
                let alarm = channel.eventLoop.scheduleTask(in: .seconds(120)) {
                    if !state.value.isUpgraded { channel.close(promise: nil) }
                }
                channel.closeFuture.whenComplete { _ in alarm.cancel() }
                return channel.eventLoop.makeCompletedFuture {
                    let upgrader = NIOTypedWebSocketClientUpgrader<(any Channel)?>(maxFrameSize: 1 << 26) { channel, _ in
                        channel.eventLoop.makeCompletedFuture {
                            state.update { $0.isUpgraded = true }
                            try channel.pipeline.syncOperations.addHandler(WebSocketFrameHandler(state))
                            return channel
                        }
                    }
                    var head = HTTPRequestHead(version: .http1_1, method: .GET, uri: path)
                    head.headers.add(name: "host", value: "127.0.0.1:\(port)")
                    for (name, value) in headers { head.headers.add(name: name, value: value) }
                    let upgrade = NIOTypedHTTPClientUpgradeConfiguration<(any Channel)?>(upgradeRequestHead: head, upgraders: [upgrader]) {
                        channel in
                        channel.close().map { nil }
                    }
                    var configuration = NIOUpgradableHTTPClientPipelineConfiguration(upgradeConfiguration: upgrade)
                    // A server of the Realtime API sends first: its frame may arrive together with the response.
                    configuration.leftOverBytesStrategy = .forwardBytes
                    return try channel.pipeline.syncOperations.configureUpgradableHTTPClientPipeline(configuration: configuration)
                }
            }
        guard let channel = try await upgraded.get() else { throw WaitedInVain(description: "port \(port) did not upgrade \(path)") }
        return WebSocketClient(channel: channel, state: state)
    }

    // MARK: sending

    package func send(_ type: String, _ payload: JSON) async throws {
        try await send(text: Self.envelope(type, payload, session: state.value.session))
    }

    package static func envelope(_ type: String, _ payload: JSON, session: String = "", version: String = "1.0") -> String {
        let milliseconds = Int(Date().timeIntervalSince1970 * 1_000)
        let envelope: JSON = [
            "version": .string(version), "msg_type": .string(type), "session_id": .string(session), "payload": payload,
            "timestamp": .integer(milliseconds),
        ]
        return envelope.text
    }

    package func send(text: String) async throws { try await send(.text, ByteBuffer(string: text)) }

    /// Sends any frame, masked as required for clients.
    package func send(_ opcode: WebSocketOpcode, _ data: ByteBuffer, final: Bool = true) async throws {
        do {
            try await channel.writeAndFlush(WebSocketFrame(fin: final, opcode: opcode, maskKey: .random(), data: data)).get()
        } catch ChannelError.ioOnClosedChannel {
            throw WaitedInVain(description: "a frame cannot be sent: the socket is closed; \(state.value)")
        }
    }

    /// Sends frames in one write, so that they usually arrive in one segment.
    package func send(together frames: [(opcode: WebSocketOpcode, data: ByteBuffer)]) async throws {
        let channel = channel
        try await channel.eventLoop.submit {
            for frame in frames {
                channel.write(WebSocketFrame(fin: true, opcode: frame.opcode, maskKey: .random(), data: frame.data), promise: nil)
            }
            channel.flush()
        }.get()
    }

    /// Registers.
    /// - Returns: the session's id from the acknowledgement.
    @discardableResult
    package func register(key: String?, fields: [(String, JSON)] = []) async throws -> String {
        var payload = JSONObject()
        payload["auth"] = ["type": "API_KEY", "api_key": .string(key ?? "none")]
        payload["platform"] = "WEB"
        payload["require_tts"] = false
        payload["enable_srs"] = false
        payload["function_calling"] = []
        for (name, value) in fields { payload[name] = value }
        try await send("REGISTER", .object(payload))
        let frame = try await expect("REGISTER_ACK")
        guard frame.payload["status"]?.string == "SUCCESS", let session = frame.payload["session_id"]?.string, !session.isEmpty,
            frame.payload["session_timeout_seconds"]?.double != nil
        else { throw WaitedInVain(description: "REGISTER_ACK \(frame.payload.text)") }
        state.update { $0.session = session }
        return session
    }

    @discardableResult
    package func request(
        _ text: String = "hello", model: String?, id: String = "r-\(UUID().uuidString)", fields: [(String, JSON)] = []
    ) async throws -> ClientRequest {
        var payload = JSONObject()
        payload["request_id"] = .string(id)
        payload["data_type"] = "TEXT"
        payload["stream_flag"] = false
        payload["stream_seq"] = 0
        payload["content"] = ["text": .string(text)]
        if let model { payload["model"] = .string(model) }
        for (name, value) in fields { payload[name] = value }
        state.update { state in
            guard state.requests[id] == nil else { return }
            state.requests[id] = RequestChecker(id: id, model: model)
            state.requests[id]?.sentAt = monotonicNanoseconds()
        }
        try await send("REQUEST", .object(payload))
        return ClientRequest(id: id, client: self)
    }

    /// Continues a request of another socket with its state.
    package func resume(_ other: ClientRequest) async throws -> ClientRequest {
        var checker = other.checker
        checker.resume()
        let taken = checker
        state.update { $0.requests[other.id] = taken }
        var payload = JSONObject()
        payload["request_id"] = .string(other.id)
        payload["last_event_id"] = taken.lastEvent.map { .string($0.description) }
        try await send("RESUME", .object(payload))
        return ClientRequest(id: other.id, client: self)
    }

    /// Sends INTERRUPT and waits for the acknowledgement.
    /// - Parameter ids: nil: omits the field.
    @discardableResult
    package func interrupt(_ ids: JSON?, reason: String = "USER_STOP", played: Int? = nil) async throws -> JSON {
        var payload = JSONObject()
        payload["interrupt_request_id"] = ids
        payload["reason"] = .string(reason)
        payload["played_ms"] = played.map(JSON.integer)
        try await send("INTERRUPT", .object(payload))
        let frame = try await expect("INTERRUPT_ACK")
        guard let status = frame.payload["status"]?.string, ["SUCCESS", "PARTIAL", "FAILED"].contains(status),
            frame.payload["interrupted_request_ids"]?.array != nil
        else { throw WaitedInVain(description: "INTERRUPT_ACK \(frame.payload.text)") }
        return frame.payload
    }

    // MARK: receiving

    /// Waits for and removes the first frame of this type that belongs to no request.
    @discardableResult
    package func expect(
        _ type: String, deadline: Duration = .testDeadline, where matches: @Sendable (JSON) -> Bool = { _ in true }
    ) async throws -> Frame {
        try await state.wait(deadline: deadline, { "a frame \(type); there are \($0.waiting.suffix(3)), close code \($0.closeCode ?? 0)" })
        { state in
            if let index = state.waiting.firstIndex(where: { $0.type == type && matches($0.payload) }) {
                return state.waiting.remove(at: index)
            }
            if let code = state.closeCode {
                throw WaitedInVain(description: "the socket closed with \(code) before a frame \(type); there are \(state.waiting)")
            }
            return nil
        }
    }

    /// Waits until the server closes the connection.
    package func closed(deadline: Duration = .testDeadline) async throws -> Int {
        try await state.wait(deadline: deadline, { "the socket's end; there are \($0.waiting.suffix(3))" }) { $0.closeCode }
    }

    package var isOpen: Bool { state.value.closeCode == nil }

    /// All problems found in frames so far.
    package var problems: [String] { state.read { $0.problems + $0.requests.values.flatMap(\.problems) } }

    /// Stops reading: data stays in the socket buffers and then at the server.
    package func stopReading() async throws { try await channel.setOption(.autoRead, value: false).get() }

    package func goOnReading() async throws { try await channel.setOption(.autoRead, value: true).get() }

    // MARK: the end

    package func close() async {
        // The connection may be closed already.
        try? await send(.connectionClose, ByteBuffer(bytes: [0x03, 0xE8]))
        _ = try? await closed(deadline: .seconds(3))
        try? await channel.close()
    }

    /// Resets the connection (RST) without a close frame, as after a network failure.
    package func abort() async {
        _ = try? await (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0)).get()
        try? await channel.close()
    }
}

/// A request on a socket.
package struct ClientRequest: Sendable {
    package init(id: String, client: WebSocketClient) {
        self.id = id
        self.client = client
    }

    package let id: String
    package let client: WebSocketClient

    package var checker: RequestChecker { client.state.read { [id] in $0.requests[id] ?? RequestChecker(id: id, model: nil) } }
    package var text: String { checker.text }

    /// Waits until this number of the simulator's tokens has arrived or the request has ended.
    package func tokens(_ count: Int, deadline: Duration = .testDeadline) async throws {
        let length = SimulatorText.tokens(count).utf8.count
        try await wait(deadline, "\(count) tokens") { $0.text.utf8.count >= length || $0.end != nil }
    }

    @discardableResult
    package func ended(deadline: Duration = .testDeadline) async throws -> RequestChecker {
        try await wait(deadline, "its end") { $0.end != nil }
        return checker
    }

    private func wait(_ deadline: Duration, _ what: String, until condition: @escaping @Sendable (RequestChecker) -> Bool) async throws {
        let id = id
        try await client.state.wait(
            deadline: deadline,
            { "\(what) of \(id); \($0.requests[id].map { "\($0.frames) frames, text …\($0.text.suffix(30))" } ?? "unknown")" }
        ) { state -> Void? in
            guard let checker = state.requests[id] else { return nil }
            if condition(checker) { return () }
            if let code = state.closeCode { throw WaitedInVain(description: "the socket closed with \(code) before \(what) of \(id)") }
            return nil
        }
    }
}
