import Contract
import JSONCodec
import Logging
import NIOCore
import NIOHTTP1

/// Serves one client connection: answers requests one at a time, in order, and keeps the connection alive if the client asks for it.
///
/// An end of file counts as a disconnect even while an answer is running: half-closed connections are not supported, because clients that
/// wait for an answer do not close their side.
final class ConnectionHandler: ChannelInboundHandler, AnswerSink {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = ByteBuffer

    private let ledger: RequestLedger
    private let clock: TokenClock
    private let logger: Logger
    private var requests: RequestAssembler
    private var context: ChannelHandlerContext?
    private var generation: SimulatedGeneration?
    /// Properties of the current request: whether to keep the connection open after it, and whether the client uses HTTP/1.0.
    private var keepsAlive = true
    private var isHTTP10 = false
    private var isAnswering = false
    /// When the end of file arrived, nanoseconds of CLOCK_MONOTONIC; nil before.
    var endOfFileAt: UInt64?
    /// No further requests are read. The connection closes after pending writes.
    private var isClosing = false

    init(ledger: RequestLedger, clock: TokenClock, maximumBody: Int, logger: Logger) {
        self.ledger = ledger
        self.clock = clock
        self.logger = logger
        requests = RequestAssembler(maximumBody: maximumBody)
    }

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }
    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch requests.take(unwrapInboundIn(data), at: TokenClock.now) {
        case .none: break
        case .sayContinue: context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: "HTTP/1.1 100 Continue\r\n\r\n")), promise: nil)
        case .ready: answerNext()
        case .close: context.close(promise: nil)
        }
        if isClosing, !isAnswering, !requests.isDiscarding { closeWhenWritten() }
    }

    func channelInactive(context: ChannelHandlerContext) {
        let generation = generation
        self.generation = nil
        generation?.clientLeft(at: endOfFileAt ?? TokenClock.now)
        context.fireChannelInactive()
    }

    /// Continues a paused answer when the socket has accepted all bytes.
    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable { generation?.roomAgain() }
        context.fireChannelWritabilityChanged()
    }

    /// Answers invalid HTTP with 400 or 431 if no other answer is running; otherwise closes the channel.
    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let error = error as? HTTPParserError else {
            // For example a connection reset: closing the channel also ends its answer.
            return context.close(promise: nil)
        }
        logger.debug("invalid HTTP request", metadata: ["error": "\(error)"])
        guard !isAnswering, !isClosing else { return context.close(promise: nil) }
        isClosing = true
        let status = error == .headerOverflow ? 431 : 400
        let body = OpenAIDialect.error(status: status, message: "invalid HTTP/1 request: \(error)", number: 0)
        let response = ResponseHead.whole(status: status, type: "application/json", body: body, keepAlive: false, http10: false)
        context.writeAndFlush(wrapOutboundOut(response), promise: nil)
        closeWhenWritten()
    }

    // MARK: answers

    /// Starts the answer to the next waiting request, unless one is running or the connection is closing.

    private func answerNext() {
        guard !isAnswering, !isClosing, context?.channel.isActive ?? false, let request = requests.next() else { return }
        isAnswering = true
        isHTTP10 = request.head.version == .http1_0
        keepsAlive = request.head.isKeepAlive && !request.isTooLarge
        let route = Route(method: request.head.method, uri: request.head.uri)
        if request.isTooLarge {
            let dialect: any Dialect.Type = if case .ask(let dialect) = route { dialect } else { OpenAIDialect.self }
            return replyNow(413, dialect.error(status: 413, message: "the request body is too large", number: 0))
        }
        switch route {
        case .health: replyNow(200, ledger.health)
        case .models: replyNow(200, ModelList.body)
        case .requests(let tag, let since): replyNow(200, ledger.list(tag: tag, since: since))
        case .clearRequests:
            ledger.clear()
            replyNow(200, Array(#"{"cleared":true}"#.utf8))
        case .wrongMethod(let allow):
            replyNow(
                405, OpenAIDialect.error(status: 405, message: "method not allowed; this path accepts \(allow)", number: 0), allow: allow)
        case .unknown: replyNow(404, OpenAIDialect.error(status: 404, message: "unknown path", number: 0))
        case .ask(let dialect): generate(request, in: dialect)
        }
    }

    /// Parses a request for an answer, records it and starts its generation.
    private func generate(_ request: ReceivedRequest, in dialect: any Dialect.Type) {
        let ask: Ask
        let script: ModelScript
        let answer: Answer
        do throws(Refusal) {
            ask = try dialect.ask(Self.body(of: request), headers: request.head.headers)
            (script, answer) = dialect.plan(ask, script: ModelScript(model: ask.model))
            guard answer.count <= Self.maximumBufferedTokens || ask.stream && ask.incremental else {
                throw Refusal(400, "answers of more than \(Self.maximumBufferedTokens) tokens require an incremental stream")
            }
        } catch {
            return replyNow(error.status, dialect.error(status: error.status, message: error.message, number: 0))
        }
        let tag = ask.tag ?? request.head.headers.first(name: "x-request-id") ?? ""
        let path = String(request.head.uri.prefix { $0 != "?" })
        let trace = request.head.headers.first(name: "traceparent") ?? ""
        let record = ledger.begin(
            tag: String(tag.prefix(200)), model: ask.model, path: path, traceparent: String(trace.prefix(200)), at: request.accepted)
        let form = dialect.form(of: answer, to: ask, number: record.number)
        let status = script.errorStatus
        let generation = SimulatedGeneration(
            script: script, answer: answer, form: form,
            error: status.map { dialect.error(status: $0, message: ErrorStatus.message($0), number: record.number) } ?? [],
            streamed: ask.stream, chunked: !isHTTP10, record: record, ledger: ledger, clock: clock, sink: self)
        self.generation = generation
        generation.begin(head: ResponseHead.stream(type: form.streamType, chunked: !isHTTP10, keepAlive: keepsAlive))
    }

    /// Maximum number of tokens of an answer that is held in memory.
    private static let maximumBufferedTokens = 200_000

    private static func body(of request: ReceivedRequest) throws(Refusal) -> JSON {
        if let type = request.head.headers.first(name: "content-type"), type.hasPrefix("multipart/form-data") {
            return try MultipartForm.json(Array(request.body.readableBytesView), contentType: type)
        }
        do throws(JSONError) {
            return try JSON(parsing: request.body.readableBytesView)
        } catch {
            throw Refusal(400, "the request body is not JSON: \(error)")
        }
    }

    /// Sends a complete JSON response and finishes the request.
    private func replyNow(_ status: Int, _ body: [UInt8], allow: String? = nil) {
        send(
            ResponseHead.whole(status: status, type: "application/json", body: body, keepAlive: keepsAlive, http10: isHTTP10, allow: allow))
        answerEnded()
    }

    /// Closes the connection after all pending writes.
    private func closeWhenWritten() {
        guard let context else { return }
        // Writes complete in order: when the empty write succeeds, all earlier bytes are out.
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        context.writeAndFlush(wrapOutboundOut(ByteBuffer())).whenComplete { _ in bound.value.close(promise: nil) }
    }

    // MARK: AnswerSink

    var isWritable: Bool { context?.channel.isWritable ?? false }

    func send(_ bytes: ByteBuffer) { context?.writeAndFlush(wrapOutboundOut(bytes), promise: nil) }

    func reply(status: Int, type: String, body: [UInt8]) {
        send(ResponseHead.whole(status: status, type: type, body: body, keepAlive: keepsAlive, http10: isHTTP10))
    }

    func answerEnded() {
        // An unchunked stream ends when its connection closes.
        if generation != nil, isHTTP10 { keepsAlive = false }
        generation = nil
        isAnswering = false
        guard keepsAlive else {
            isClosing = true
            if !requests.isDiscarding { closeWhenWritten() }
            return
        }
        answerNext()
    }

    func breakOff() {
        generation = nil
        isAnswering = false
        isClosing = true
        closeWhenWritten()
    }
}

/// First handler of the pipeline: records when the client's end of file arrives and closes the channel. The time is taken here because
/// closing a socket takes as long as some whole interrupts, and must not be measured with them.
final class EndOfFileHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let connection: ConnectionHandler

    init(told: ConnectionHandler) { connection = told }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard case .some(ChannelEvent.inputClosed) = event as? ChannelEvent else { return context.fireUserInboundEventTriggered(event) }
        connection.endOfFileAt = TokenClock.now
        context.close(promise: nil)
    }
}
