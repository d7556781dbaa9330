import NIOCore
import NIOPosix

/// A TCP connection for raw bytes. Answers are searched for marks instead of decoded, to keep the client's CPU time low.
final class AbuseConnection: Sendable {
    private let channel: any Channel
    private let watcher: NIOLoopBound<AnswerWatcher>

    private init(_ channel: any Channel, _ watcher: NIOLoopBound<AnswerWatcher>) {
        self.channel = channel
        self.watcher = watcher
    }

    /// Opens a connection.
    /// - Parameters:
    ///   - source: the local address to connect from; nil: the kernel's choice.
    ///   - reads: false: never read from the socket, so that the peer's send buffer fills up. Implies `hasSmallBuffer`.
    ///   - hasSmallBuffer: whether the kernel buffers only a few kilobytes that were not read.
    /// - Throws: when the connection is refused or not established within 5 s.
    static func open(
        to address: ListenAddress, from source: String? = nil, group: any EventLoopGroup, reads: Bool = true,
        hasSmallBuffer: Bool = false
    ) async throws -> AbuseConnection {
        var bootstrap = ClientBootstrap(group: group)
            .connectTimeout(.seconds(5))
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.autoRead, value: reads)
        if !reads || hasSmallBuffer { bootstrap = bootstrap.channelOption(.socketOption(.so_rcvbuf), value: 4_096) }
        if let source { bootstrap = bootstrap.bind(to: try SocketAddress(ipAddress: source, port: 0)) }
        return try await bootstrap.connect(host: address.host, port: address.port) { channel in
            channel.eventLoop.makeCompletedFuture {
                let watcher = AnswerWatcher()
                try channel.pipeline.syncOperations.addHandler(watcher)
                return AbuseConnection(channel, NIOLoopBound(watcher, eventLoop: channel.eventLoop))
            }
        }
    }

    var isOpen: Bool { channel.isActive }

    /// Sends bytes. Returns when the kernel has accepted them.
    /// - Returns: false when the connection is closed.
    @discardableResult
    func send(_ bytes: ByteBuffer) async -> Bool {
        do {
            try await channel.writeAndFlush(bytes).get()
            return true
        } catch {
            // The peer has closed the connection, which is the expected reaction to most attacks.
            return false
        }
    }

    @discardableResult
    func send(_ text: String) async -> Bool { await send(ByteBuffer(string: text)) }

    /// Sends bytes and waits for one of several marks in the bytes received afterwards.
    /// - Returns: the index of the mark that was received, the first one in list order; nil: timeout, or the connection was closed.
    func exchange(_ bytes: ByteBuffer, for marks: [StaticString], within patience: TimeAmount = .seconds(20)) async -> Int? {
        let promise = channel.eventLoop.makePromise(of: Int?.self)
        channel.eventLoop.execute { [channel, watcher] in
            watcher.value.start()
            channel.writeAndFlush(bytes, promise: nil)
            watcher.value.expect(marks, promise, isActive: channel.isActive)
        }
        return await first(promise, within: patience)
    }

    /// Waits for one of several marks in the bytes received since the start of the last exchange.
    func expect(_ marks: [StaticString], within patience: TimeAmount = .seconds(20)) async -> Int? {
        let promise = channel.eventLoop.makePromise(of: Int?.self)
        channel.eventLoop.execute { [channel, watcher] in watcher.value.expect(marks, promise, isActive: channel.isActive) }
        return await first(promise, within: patience)
    }

    /// The promise's result; nil after the timeout.
    private func first(_ promise: EventLoopPromise<Int?>, within patience: TimeAmount) async -> Int? {
        let deadline = channel.eventLoop.scheduleTask(in: patience) { [watcher] in watcher.value.giveUp() }
        defer { deadline.cancel() }
        do { return try await promise.futureResult.get() } catch { return nil }
    }

    /// Stops reading from the socket.
    func stopReading() async throws { try await channel.setOption(.autoRead, value: false).get() }

    func close() { channel.close(mode: .all, promise: nil) }
}

/// Searches received bytes for marks while an exchange is pending. Runs on the channel's event loop.
private final class AnswerWatcher: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    /// Maximum bytes to keep for searching.
    private static let maximumKept = 1 << 20
    /// Bytes to keep beyond that maximum; longer than any mark.
    private static let tail = 4_096

    private var received: [UInt8] = []
    private var isKeeping = false
    private var marks: [StaticString] = []
    private var waiting: EventLoopPromise<Int?>?

    /// Starts an exchange: forgets received bytes.
    func start() {
        received.removeAll(keepingCapacity: true)
        isKeeping = true
    }

    /// Completes the promise with the index of the first mark received; nil when the connection is closed.
    func expect(_ marks: [StaticString], _ promise: EventLoopPromise<Int?>, isActive: Bool) {
        waiting?.succeed(nil)
        self.marks = marks
        waiting = promise
        search()
        if !isActive { giveUp() }
    }

    /// Completes the pending promise with nil.
    func giveUp() {
        isKeeping = false
        waiting?.succeed(nil)
        waiting = nil
    }

    private func search() {
        guard let waiting else { return }
        let found = received.withUnsafeBytes { bytes in marks.firstIndex { TokenScan.contains($0, in: bytes) } }
        guard let found else { return }
        self.waiting = nil
        waiting.succeed(found)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard isKeeping else { return }
        received.append(contentsOf: unwrapInboundIn(data).readableBytesView)
        search()
        if received.count > Self.maximumKept { received.removeFirst(received.count - Self.tail) }
    }

    func channelInactive(context: ChannelHandlerContext) {
        giveUp()
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}

/// Builds HTTP requests, WebSocket frames and protocol messages as bytes.
enum AbuseMessage {
    enum Opcode: UInt8 {
        case continuation = 0
        case text = 1
    }

    /// Appends a client's frame. The masking key is zero, so that the payload needs no masking.
    static func append(_ payload: some Collection<UInt8>, _ opcode: Opcode = .text, isFinal: Bool = true, to out: inout ByteBuffer) {
        out.writeInteger(opcode.rawValue | (isFinal ? 0x80 : 0))
        switch payload.count {
        case ..<126: out.writeInteger(UInt8(payload.count) | 0x80)
        case ..<65_536:
            out.writeInteger(UInt8(126 | 0x80))
            out.writeInteger(UInt16(payload.count))
        default:
            out.writeInteger(UInt8(127 | 0x80))
            out.writeInteger(UInt64(payload.count))
        }
        out.writeInteger(UInt32(0))
        out.writeBytes(payload)
    }

    /// A text message in one frame.
    static func frame(_ text: String) -> ByteBuffer {
        var out = ByteBuffer()
        append(text.utf8, to: &out)
        return out
    }

    /// A message of the protocol.
    /// - Parameter payload: the members of the payload, without braces.
    static func envelope(_ type: String, _ payload: String) -> String {
        #"{"version":"1.0","msg_type":"\#(type)","session_id":"","payload":{\#(payload)},"timestamp":1763800000000}"#
    }

    /// A REGISTER frame with an API key.
    /// - Parameter fields: further members, each preceded by a comma.
    static func register(key: String, fields: String = "") -> ByteBuffer {
        frame(envelope("REGISTER", #""auth":{"type":"API_KEY","api_key":"\#(key)"},"platform":"APP"\#(fields)"#))
    }

    /// A REGISTER frame with an account and a password.
    static func logIn(_ account: String, password: String) -> ByteBuffer {
        frame(envelope("REGISTER", #""auth":{"type":"ACCOUNT","account":"\#(account)","password":"\#(password)"},"platform":"APP""#))
    }

    /// A REQUEST message.
    static func request(_ id: String, text: String = "go", model: String = "sim-n1-g0", fields: String = "") -> String {
        envelope(
            "REQUEST",
            #""request_id":"\#(id)","data_type":"TEXT","stream_flag":false,"stream_seq":0,"content":{"text":"\#(text)"},"model":"\#(model)"\#(fields)"#
        )
    }

    /// The HTTP request that upgrades to WebSocket.
    static func upgrade(_ host: ListenAddress) -> ByteBuffer {
        ByteBuffer(
            string: "GET \(ChatAddress.path) HTTP/1.1\r\nHost: \(host)\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    }

    /// The head of an HTTP request.
    static func head(_ method: String, _ path: String, host: ListenAddress, key: String, headers: [String] = []) -> String {
        (["\(method) \(path) HTTP/1.1", "Host: \(host)", "Authorization: Bearer \(key)"] + headers).joined(separator: "\r\n") + "\r\n\r\n"
    }

    static func post(_ path: String, _ body: String, host: ListenAddress, key: String) -> ByteBuffer {
        ByteBuffer(
            string: head(
                "POST", path, host: host, key: key, headers: ["Content-Type: application/json", "Content-Length: \(body.utf8.count)"])
                + body)
    }
}
