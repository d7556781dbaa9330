import Contract
import CoreMetrics
import JSONCodec
import Logging
import NIOCore
import NIOWebSocket
import Support

/// The WebSocket of one client: receives frames, sends messages, and enforces its timeouts. ClientSocket+Messages handles the messages.
///
/// Confined to the event loop.
final class ClientSocket: ChannelInboundHandler {
    typealias InboundIn = WebSocketFrame
    typealias OutboundOut = WebSocketFrame

    enum State {
        /// Waiting for REGISTER. Next: `registering`, `closing`.
        case unregistered
        /// Credentials or the session are being looked up; messages are queued. Next: `registered`, `unregistered`, `closing`.
        case registering
        /// Next: `closing`.
        case registered(Session)
        /// A close frame was sent or answered; all other frames are ignored. Next: `closed`.
        case closing
        /// The connection is closed. Reached from every state.
        case closed
    }

    /// Bytes reserved in front of each payload, so that the frame header is written into the same buffer.
    private static let headerRoom = 10
    /// Time for the peer to read pending data and answer the close frame.
    private static let closingTime = Duration.seconds(3)

    let gateway: GatewayState
    /// IP address of the peer.
    let address: String
    /// The `traceparent` header of the upgrade request; passed on with all jobs of this socket.
    var traceparent: String?
    var state = State.unregistered
    /// The Realtime protocol; nil: the socket speaks the WebSocket protocol of the contract.
    private(set) var realtime: RealtimeConnection?
    /// Messages received while REGISTER is processed; limited by `UnregisteredBudget`.
    var waiting: [Envelope] = []
    /// The account of the address until the socket is registered, then of the tenant.
    var account: TrafficAccount
    /// Whether `account` counts this socket as registered.
    var isCounted = false
    private(set) var messages: MessageMachine
    private var allowance: Allowance
    private var budget = UnregisteredBudget()
    /// Bytes that the account holds for this socket: undecoded input and the fragments of an incomplete message.
    var pendingBytes = 0
    /// The open VOICE request.
    var upload: VoiceUpload?
    /// The last VOICE request that was refused or interrupted before its end.
    var discardedUpload: String?
    /// Bytes that the session's account holds for `upload`, and that account.
    var uploadBytes = 0
    var uploadAccount: TrafficAccount?
    /// Bytes received before registration.
    var unregisteredBytes = 0
    /// Frames decoded since the last read from the network.
    var frames = 0
    private var context: ChannelHandlerContext?
    /// Whether the socket has unflushed writes and is in the flush list.
    private var isDirty = false
    /// Measures unsent output.
    var output = SocketOutput()
    /// Whether anything was received since the last heartbeat.
    var wasHeard = true
    var silentBeats = 0
    var timer: Scheduled<Void>?
    var beats: RepeatedTask?
    var expiry: Scheduled<Void>?
    /// Completed when the close frame is in the kernel's buffer; nil before one is written.
    private var closeFrameSent: EventLoopFuture<Void>?

    var settings: GatewaySettings { gateway.context.settings }
    var eventLoop: any EventLoop { gateway.context.eventLoop }

    /// - Parameter grant: of a client of the Realtime API, which is authenticated already; nil for other clients.
    init(gateway: GatewayState, address: String, grant: RealtimeGrant? = nil) {
        self.gateway = gateway
        self.address = address
        let settings = gateway.context.settings
        messages = MessageMachine(maximum: settings.messageMaximum, acceptsBinary: settings.recognizes && grant == nil)
        account = gateway.registry.accounts.address(AddressShares.key(address))
        allowance = Allowance(perSecond: settings.messagesPerSecond, milliseconds: WallClock.milliseconds)
        realtime = grant.map { RealtimeConnection($0, socket: self) }
    }

    /// The session while the socket is registered; nil before and while closing.
    var session: Session? { if case .registered(let session) = state { session } else { nil } }

    // MARK: channel

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        addIntake(context)
        gateway.ledger.add(self)
        GatewayMetrics.socketsOpened.increment()
        if let realtime { openRealtime(realtime.grant) } else { awaitRegister() }
    }

    /// Waits for REGISTER: the first one, or another one after a refusal.
    func awaitRegister() {
        state = .unregistered
        timer = eventLoop.after(settings.registerTimeout) { [weak self] in
            self?.close(.notRegistered, "REGISTER timed out")
        }
    }

    /// Reads nothing until the session of a Realtime client is open, or again.
    func setReading(_ isOn: Bool) {
        do { try context?.channel.syncOptions?.setOption(.autoRead, value: isOn) } catch { context?.fireErrorCaught(error) }
    }

    /// REGISTER was received. Stops the client's timeout, because the check may wait for those of other clients.
    func registering() {
        state = .registering
        timer?.cancel()
    }

    func handlerRemoved(context: ChannelHandlerContext) { connectionClosed() }

    func channelInactive(context: ChannelHandlerContext) {
        connectionClosed()
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let frame = unwrapInboundIn(data)
        wasHeard = true
        frames += 1
        account.charge(TrafficAccount.frameCost + frame.length)
        GatewayMetrics.framesReceived.increment()
        if case .closing = state {
            // Ignore everything except the peer's close frame.
            if frame.opcode == .connectionClose { closeWhenSent() }
            return
        }
        guard allowance.take(milliseconds: WallClock.milliseconds) else { return close(.tooManyMessages, "too many messages") }
        if session == nil, realtime == nil, let code = budget.take(bytes: frame.length, startsMessage: frame.opcode != .continuation) {
            return close(code, "too much data before REGISTER")
        }
        switch messages.receive(frame) {
        case .none: break
        case .message(let message):
            account.charge(message.readableBytes)
            received(message)
        case .binary(let audio): receivedAudio(audio)
        case .pong(let payload): write(.pong, payload)
        case .closed(let code): answerClose(code)
        case .fail(let code): close(code, "")
        case .failAtOnce(let code):
            close(code, "")
            closeWhenSent()
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        // The peer closed its sending side; a WebSocket is not used half-closed.
        if let event = event as? ChannelEvent, event == .inputClosed { closeWhenSent() }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        switch error as? NIOWebSocketError {
        case .invalidFrameLength: close(.messageTooBig, "the message is too large")
        case .fragmentedControlFrame, .multiByteControlFrameLength: close(.protocolError, "")
        default:
            // The remaining bytes of a rejected frame cause further errors. Closing on them would reset the connection before the close
            // frame is delivered.
            if case .closing = state { return }
            context.close(promise: nil)
        }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        // Unflushed data does not mean that the reader is slow, so flush before judging.
        if !context.channel.isWritable { context.flush() }
        watchOutput(context.channel)
        context.fireChannelWritabilityChanged()
    }

    /// Cleans up after the connection closed. Idempotent.
    private func connectionClosed() {
        context = nil
        timer?.cancel()
        beats?.cancel()
        expiry?.cancel()
        let session = session
        leaveOutput()
        if case .closed = state { return }
        realtime?.closed()
        state = .closed
        waiting = []
        discardUpload()
        leaveAccount()
        gateway.ledger.remove(self)
        if let session { leave(session) }
        gateway.completeDrainIfEmpty()
    }

    // MARK: sending

    /// Writes one message. It is flushed at the end of this event loop tick together with all others.
    func send(_ message: [UInt8]) {
        switch state {
        case .closing, .closed: return
        default: break
        }
        guard let context else { return }
        var buffer = context.channel.allocator.buffer(capacity: Self.headerRoom + message.count)
        buffer.moveWriterIndex(to: Self.headerRoom)
        buffer.moveReaderIndex(to: Self.headerRoom)
        buffer.writeBytes(message)
        write(.text, buffer)
    }

    func send(_ type: String, _ payload: JSON) {
        send(EnvelopeWriter.message(type, session: session?.id ?? "", payload: payload, milliseconds: WallClock.milliseconds))
    }

    func send(_ error: ProtocolError) {
        if let realtime { return realtime.send(RealtimeError(error)) }
        Refusals.count(.message, code: error.code.rawValue)
        send("ERROR", error.payload)
    }

    /// Sends a ping, which clients answer without the application.
    func ping() {
        guard let context else { return }
        write(.ping, context.channel.allocator.buffer(capacity: 0))
    }

    /// Writes a frame and adds the socket to the flush list.
    private func write(_ opcode: WebSocketOpcode, _ payload: ByteBuffer) {
        guard let context else { return }
        var promise: EventLoopPromise<Void>?
        if opcode == .connectionClose {
            promise = context.eventLoop.makePromise()
            closeFrameSent = promise?.futureResult
        }
        let size = payload.readableBytes + Self.headerRoom
        context.write(wrapOutboundOut(WebSocketFrame(fin: true, opcode: opcode, data: payload)), promise: promise)
        GatewayMetrics.framesSent.increment()
        if !isDirty {
            isDirty = true
            gateway.flushes.add(self)
        }
        if output.isWatched, opcode != .connectionClose { wrote(size, context) }
    }

    /// Called by the flush list.
    func flush() {
        isDirty = false
        guard let context else { return }
        context.flush()
        if output.isWatched { measureOutput(context.channel) }
    }

    // MARK: closing

    /// Sends a close frame. The connection closes when the peer answers, or after `closingTime`.
    /// - Parameter reason: at most 123 bytes.
    func close(_ code: CloseCode, _ reason: String) {
        switch state {
        case .closing, .closed: return
        default: break
        }
        guard let context else { return }
        if code == .tooSlow { GatewayMetrics.slowReaders.increment() }
        let session = session
        if code != .normal, code != .goingAway { Refusals.count(.socket, code: "\(code.rawValue)") }
        var payload = context.channel.allocator.buffer(capacity: 2 + reason.utf8.count)
        payload.writeInteger(code.rawValue)
        payload.writeString(reason)
        write(.connectionClose, payload)
        closing(session)
        gateway.context.logger.debug(
            "socket closed", metadata: ["code": "\(code.rawValue)", "reason": "\(reason)", "session": "\(session?.id ?? "")"])
    }

    /// Echoes the peer's close frame and closes the connection.
    private func answerClose(_ code: UInt16?) {
        guard let context else { return }
        let session = session
        var payload = context.channel.allocator.buffer(capacity: 2)
        if let code { payload.writeInteger(code) }
        write(.connectionClose, payload)
        closing(session)
        closeWhenSent()
    }

    /// Closes the connection once everything written has been sent, at the latest after `closingTime`. Without a close frame it closes
    /// immediately.
    private func closeWhenSent() {
        guard let context else { return }
        guard let closeFrameSent else { return context.close(promise: nil) }
        closeFrameSent.assumeIsolated().whenComplete { [weak self] _ in self?.context?.close(promise: nil) }
        flush()
    }

    /// Enters `closing` and detaches the session.
    private func closing(_ session: Session?) {
        realtime?.closed()
        state = .closing
        waiting = []
        discardUpload()
        releaseWaiting()
        timer?.cancel()
        beats?.cancel()
        expiry?.cancel()
        timer = eventLoop.after(Self.closingTime) { [weak self] in self?.context?.close(promise: nil) }
        // The grace period starts now, not when the connection closes.
        if let session { leave(session) }
    }

    /// Detaches the socket from its session. A Realtime session cannot be resumed, so it ends with its socket.
    private func leave(_ session: Session) {
        if realtime == nil { gateway.registry.detach(self, from: session) } else { gateway.registry.end(session) }
    }

    // MARK: draining

    /// Whether the socket has no running requests.
    var isIdle: Bool { session?.running.isEmpty ?? true }

    /// Closes the connection without a close frame.
    func abort() { context?.close(promise: nil) }

    /// Closes the socket with 1001 during a drain, so that the client reconnects to another gateway.
    func sendAway() {
        guard context != nil else { return }
        if realtime == nil { send("SHUTDOWN", ["reason": "the server is shutting down; reconnect"]) }
        close(.goingAway, "draining")
    }

    /// Called when a request of the session ended; closes an idle socket during a drain.
    func requestEnded() {
        if gateway.context.readiness.isDraining, isIdle { sendAway() }
    }
}
