import Contract
import JSONCodec
import Logging
import NIOCore
import NIOHTTP1

/// One client's connection: requests in, one answer at a time out, in order; kept alive as the client wishes.
///
/// End of file counts as gone, also while an answer runs: half-closed connections are not supported (a client that waits for its answer
/// does not close its side).
final class ConnectionHandler: ChannelInboundHandler, AnswerSink {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = ByteBuffer

    private let ledger: RequestLedger
    private let clock: TokenClock
    private let logger: Logger
    private var requests: RequestAssembler
    private var context: ChannelHandlerContext?
    private var generation: Generation?
    /// Set while a request is being answered: whether its client keeps the connection, and speaks HTTP/1.0.
    private var keepsAlive = true
    private var isHTTP10 = false
    private var isAnswering = false
    /// When the client's end of file came in, ns; nil: not yet.
    var endOfFileAt: UInt64?
    /// No further request is taken; the connection closes once what was written is out.
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

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable { generation?.roomAgain() }
        context.fireChannelWritabilityChanged()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let error = error as? HTTPParserError else {
            // A reset and the like: the channel closes, and its answer ends there.
            return context.close(promise: nil)
        }
        logger.debug("a request is not HTTP", metadata: ["error": "\(error)"])
        guard !isAnswering, !isClosing else { return context.close(promise: nil) }
        isClosing = true
        let status = error == .headerOverflow ? 431 : 400
        let body = OpenAIDialect.error(status: status, message: "the request is not HTTP/1: \(error)", number: 0)
        let response = ResponseHead.whole(status: status, type: "application/json", body: body, keepAlive: false, http10: false)
        context.writeAndFlush(wrapOutboundOut(response), promise: nil)
        closeWhenWritten()
    }

    // MARK: answering

    private func answerNext() {
        guard !isAnswering, !isClosing, context?.channel.isActive ?? false, let request = requests.next() else { return }
        isAnswering = true
        isHTTP10 = request.head.version == .http1_0
        keepsAlive = request.head.isKeepAlive && !request.isTooLarge
        let route = Route(method: request.head.method, uri: request.head.uri)
        if request.isTooLarge {
            let dialect: any Dialect.Type = if case .ask(let dialect) = route { dialect } else { OpenAIDialect.self }
            return replyNow(413, dialect.error(status: 413, message: "the body is too large", number: 0))
        }
        switch route {
        case .health: replyNow(200, ledger.health)
        case .models: replyNow(200, ModelList.body)
        case .requests(let tag, let since): replyNow(200, ledger.list(tag: tag, since: since))
        case .clearRequests:
            ledger.clear()
            replyNow(200, Array(#"{"cleared":true}"#.utf8))
        case .wrongMethod(let allow):
            replyNow(405, OpenAIDialect.error(status: 405, message: "this path takes \(allow)", number: 0), allow: allow)
        case .unknown: replyNow(404, OpenAIDialect.error(status: 404, message: "the simulator has no such path", number: 0))
        case .ask(let dialect): generate(request, in: dialect)
        }
    }

    private func generate(_ request: ReceivedRequest, in dialect: any Dialect.Type) {
        let ask: Ask
        let script: ModelScript
        let answer: Answer
        do throws(Refusal) {
            ask = try dialect.ask(Self.body(of: request), headers: request.head.headers)
            (script, answer) = dialect.plan(ask, script: ModelScript(model: ask.model))
            guard answer.count <= Self.maximumKept || ask.stream && ask.incremental else {
                throw Refusal(400, "more than \(Self.maximumKept) tokens only in an incremental stream")
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
        let generation = Generation(
            script: script, answer: answer, form: form,
            error: status.map { dialect.error(status: $0, message: ErrorStatus.message($0), number: record.number) } ?? [],
            streamed: ask.stream, chunked: !isHTTP10, record: record, ledger: ledger, clock: clock, sink: self)
        self.generation = generation
        generation.begin(head: ResponseHead.stream(type: form.streamType, chunked: !isHTTP10, keepAlive: keepsAlive))
    }

    /// Tokens of an answer that is held in memory.
    private static let maximumKept = 200_000

    private static func body(of request: ReceivedRequest) throws(Refusal) -> JSON {
        do throws(JSONError) {
            return try JSON(parsing: request.body.readableBytesView)
        } catch {
            throw Refusal(400, "the body is not JSON: \(error)")
        }
    }

    private func replyNow(_ status: Int, _ body: [UInt8], allow: String? = nil) {
        send(
            ResponseHead.whole(status: status, type: "application/json", body: body, keepAlive: keepsAlive, http10: isHTTP10, allow: allow))
        answerEnded()
    }

    private func closeWhenWritten() {
        guard let context else { return }
        // Whatever is written before it is out by the time the promise of an empty write succeeds.
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
        // A stream without chunks ends with its connection.
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

/// First in the pipeline: notes when the client's end of file comes in, and closes. Clearing a socket away takes as long as some interrupts
/// as a whole, and is not what is measured.
final class EndOfFileHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let told: ConnectionHandler

    init(told: ConnectionHandler) { self.told = told }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard case .some(ChannelEvent.inputClosed) = event as? ChannelEvent else { return context.fireUserInboundEventTriggered(event) }
        told.endOfFileAt = TokenClock.now
        context.close(promise: nil)
    }
}
