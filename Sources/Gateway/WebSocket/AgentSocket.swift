import Contract
import CoreMetrics
import JSONCodec
import Logging
import NIOCore
import NIOWebSocket

/// One client's WebSocket: frames in, messages out, and the times that its life is bounded by. What messages mean stands in
/// AgentSocket+Messages.
///
/// Everything happens on the event loop, most of it within the turn in which the bytes came.
final class AgentSocket: ChannelInboundHandler {
    typealias InboundIn = WebSocketFrame
    typealias OutboundOut = WebSocketFrame

    enum State {
        /// REGISTER is waited for.
        case unregistered
        /// Credentials or the session are being looked up; what comes meanwhile waits.
        case registering
        case registered(Session)
        /// Our close frame is sent, or the peer's was answered: nothing that comes counts.
        case closing
        case closed
    }

    /// A frame's header is written in front of its payload, in the same buffer.
    private static let headerRoom = 10
    /// How long the peer has to answer a close frame, and to read what was sent before it.
    private static let closingTime = Duration.seconds(3)

    let node: GatewayNode
    let address: String
    /// Of the upgrade's request: the trace that the socket's requests belong to.
    var traceparent: String?
    var state = State.unregistered
    /// Messages that came while REGISTER was looked at; `UnregisteredBudget` bounds them.
    var waiting: [Envelope] = []
    /// Of the address until the socket is registered, then of the tenant.
    var account: TrafficAccount
    var isCounted = false
    private(set) var messages: MessageMachine
    private var allowance: Allowance
    private var budget = UnregisteredBudget()
    /// Bytes that came since the last frame, and those of a message that is not whole: what the account holds for this socket.
    var pendingBytes = 0
    /// Bytes that came before the socket was registered.
    var unregisteredBytes = 0
    /// Frames since the last read from the network.
    var frames = 0
    private var context: ChannelHandlerContext?
    private var isDirty = false
    var output = SocketOutput()
    var wasHeard = true
    private var silentBeats = 0
    private var timer: Scheduled<Void>?
    private var beats: RepeatedTask?
    private var expiry: Scheduled<Void>?

    var settings: GatewaySettings { node.context.settings }
    var eventLoop: any EventLoop { node.context.eventLoop }

    init(node: GatewayNode, address: String) {
        self.node = node
        self.address = address
        messages = MessageMachine(maximum: node.context.settings.messageMaximum)
        account = node.host.accounts.address(AddressShares.key(address))
        allowance = Allowance(perSecond: node.context.settings.messagesPerSecond, milliseconds: WallClock.milliseconds)
    }

    /// The session, unless the socket is not registered or on its way out.
    var session: Session? { if case .registered(let session) = state { session } else { nil } }

    // MARK: channel

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        addIntake(context)
        node.ledger.add(self)
        GatewayMetrics.socketsOpened.increment()
        awaitRegister()
    }

    /// Another REGISTER may come: the first one, or one after a refusal.
    func awaitRegister() {
        state = .unregistered
        timer = eventLoop.after(settings.registerTimeout) { [weak self] in
            self?.close(.notRegistered, "REGISTER did not come in time")
        }
    }

    /// REGISTER came. Its check may wait for those of others, so that the client's time stops.
    func registering() {
        state = .registering
        timer?.cancel()
    }

    func handlerRemoved(context: ChannelHandlerContext) { gone() }

    func channelInactive(context: ChannelHandlerContext) {
        gone()
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let frame = unwrapInboundIn(data)
        wasHeard = true
        frames += 1
        account.charge(TrafficAccount.frameCost + frame.length)
        GatewayMetrics.framesReceived.increment()
        if case .closing = state {
            // Only the peer's close frame is still of interest.
            if frame.opcode == .connectionClose { context.close(promise: nil) }
            return
        }
        guard allowance.take(milliseconds: WallClock.milliseconds) else { return close(.tooManyMessages, "too many messages") }
        if session == nil, let code = budget.take(bytes: frame.length, startsMessage: frame.opcode != .continuation) {
            return close(code, "too much before REGISTER")
        }
        switch messages.receive(frame) {
        case .none: break
        case .message(let message):
            account.charge(message.readableBytes)
            received(message)
        case .pong(let payload): write(.pong, payload)
        case .closed(let code): answerClose(code)
        case .fail(let code): close(code, "")
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        // Half-closed by the peer: nothing more will come, and nobody reads.
        if let event = event as? ChannelEvent, event == .inputClosed { context.close(promise: nil) }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        switch error as? NIOWebSocketError {
        case .invalidFrameLength: close(.messageTooBig, "the message is too large")
        case .fragmentedControlFrame, .multiByteControlFrameLength: close(.protocolError, "")
        default:
            // The rest of a refused frame comes in as further errors: closing on them would reset the connection, and the close frame with
            // it.
            if case .closing = state { return }
            context.close(promise: nil)
        }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        // What is merely not flushed yet is no sign of a slow reader.
        if !context.channel.isWritable { context.flush() }
        watchOutput(context.channel)
        context.fireChannelWritabilityChanged()
    }

    private func gone() {
        context = nil
        timer?.cancel()
        beats?.cancel()
        expiry?.cancel()
        let session = session
        leaveOutput()
        if case .closed = state { return }
        state = .closed
        waiting = []
        leaveAccount()
        node.ledger.remove(self)
        if let session { node.host.detach(self, from: session) }
        node.leftIfDrained()
    }

    // MARK: sending

    /// One message; flushed with all others of this turn.
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
        Refusals.count(.message, code: error.code.rawValue)
        send("ERROR", error.payload)
    }

    private func write(_ opcode: WebSocketOpcode, _ payload: ByteBuffer) {
        guard let context else { return }
        let size = payload.readableBytes + Self.headerRoom
        context.write(wrapOutboundOut(WebSocketFrame(fin: true, opcode: opcode, data: payload)), promise: nil)
        GatewayMetrics.framesSent.increment()
        if !isDirty {
            isDirty = true
            node.flushes.add(self)
        }
        if output.isWatched, opcode != .connectionClose { wrote(size, context) }
    }

    func flush() {
        isDirty = false
        guard let context else { return }
        context.flush()
        if output.isWatched { measureOutput(context.channel) }
    }

    // MARK: closing

    /// Sends a close frame; the connection ends with the peer's, or a little later without it.
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
        node.context.logger.debug(
            "socket closed", metadata: ["code": "\(code.rawValue)", "reason": "\(reason)", "session": "\(session?.id ?? "")"])
    }

    private func answerClose(_ code: UInt16?) {
        guard let context else { return }
        let session = session
        var payload = context.channel.allocator.buffer(capacity: 2)
        if let code { payload.writeInteger(code) }
        write(.connectionClose, payload)
        closing(session)
        flush()
        context.close(promise: nil)
    }

    private func closing(_ session: Session?) {
        state = .closing
        waiting = []
        releaseWaiting()
        timer?.cancel()
        beats?.cancel()
        expiry?.cancel()
        timer = eventLoop.after(Self.closingTime) { [weak self] in self?.context?.close(promise: nil) }
        // The grace begins now, not when the connection is gone.
        if let session { node.host.detach(self, from: session) }
    }

    // MARK: life

    /// REGISTER succeeded.
    func registered(_ session: Session) {
        state = .registered(session)
        timer?.cancel()
        node.host.attach(self, to: session)
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let period = TimeAmount.milliseconds(Int64(settings.heartbeat.milliseconds))
        beats = eventLoop.scheduleRepeatedTask(initialDelay: period, delay: period) { _ in bound.value.beat() }
        watchExpiry(session)
    }

    private func beat() {
        guard let session else { return }
        silentBeats = wasHeard ? 0 : silentBeats + 1
        wasHeard = false
        guard silentBeats < 2 else { return close(.silent, "nothing was heard for two heartbeats") }
        send("HEARTBEAT", ["remaining_seconds": .integer(remainingSeconds(session))])
    }

    func remainingSeconds(_ session: Session) -> Int {
        max(0, (session.expiry(settings.sessionTimeout) - WallClock.milliseconds) / 1000)
    }

    /// Looks again when the session may expire or has to be warned; every REQUEST moves that on.
    private func watchExpiry(_ session: Session) {
        let warning = min(settings.sessionWarning, settings.sessionTimeout / 2).milliseconds
        let left = session.expiry(settings.sessionTimeout) - WallClock.milliseconds
        if left <= 0, session.running.isEmpty {
            node.context.logger.info("session expired", metadata: ["session": "\(session.id)"])
            send(ProtocolError(.sessionInvalid, "the session expired"))
            node.host.end(session)
            close(.unauthorized, "the session expired")
            return
        }
        if left <= warning, left > 0, !session.isWarned {
            session.isWarned = true
            send(
                "SESSION_WARN",
                [
                    "warn_type": "SESSION_EXPIRING", "remaining_seconds": .integer(left / 1000),
                    "message": "the session expires unless a request comes",
                ])
        }
        let next = left <= 0 ? 1000 : session.isWarned ? left : left - warning
        expiry = eventLoop.after(.milliseconds(max(next, 1))) { [weak self] in
            guard let self, let session = self.session else { return }
            self.watchExpiry(session)
        }
    }

    // MARK: draining

    /// Nothing runs that its client waits for.
    var isIdle: Bool { session?.running.isEmpty ?? true }

    /// Without a close frame: the gateway ends.
    func abort() { context?.close(promise: nil) }

    func sendAway() {
        guard context != nil else { return }
        send("SHUTDOWN", ["reason": "the server is going down; reconnect"])
        close(.goingAway, "draining")
    }

    /// A request of the session is over.
    func requestEnded() {
        if node.context.readiness.isDraining, isIdle { sendAway() }
    }
}
