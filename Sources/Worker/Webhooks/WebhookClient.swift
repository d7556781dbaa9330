import CurlTransport
import Support

/// Sends webhooks on the upstream loop, by its own connections: only to addresses that the rule allows, without following redirects.
actor WebhookClient: PinnedActor {
    /// Maximum duration of a delivery.
    private static let timeout = Duration.seconds(15)

    private nonisolated let loop: EpollLoop
    private let multi: CurlMulti
    private var deliveries: [ObjectIdentifier: Delivery] = [:]

    nonisolated var executor: EpollLoop { loop }

    /// - Throws: `CurlMulti.SetupError` if libcurl cannot be initialized.
    init(loop: EpollLoop, settings: WebhookSettings) throws {
        self.loop = loop
        var transport = TransportSettings()
        transport.caFile = settings.caFile
        transport.connectionsKept = 16
        multi = try CurlMulti(loop: loop, settings: transport, sockets: UpstreamSockets(rule: settings.allow))
    }

    /// Sends a request.
    /// - Returns: nil when the receiver answered with a status of 200 to 299, else the reason of the failure.
    func send(_ request: HTTPRequest) async -> String? {
        await withCheckedContinuation { start(request, $0) }
    }

    private func start(_ request: HTTPRequest, _ continuation: CheckedContinuation<String?, Never>) {
        let delivery = Delivery()
        let id = ObjectIdentifier(delivery)
        deliveries[id] = delivery
        delivery.ended = { [unowned self] reason in
            ended(id)
            continuation.resume(returning: reason)
        }
        do throws(CurlMulti.SetupError) {
            delivery.transfer = try multi.start(request, owner: nil, delegate: delivery)
        } catch {
            return delivery.end("the request could not be made: \(error)")
        }
        delivery.timer = loop.schedule(after: Self.timeout) { [unowned delivery] in
            delivery.timer = nil
            delivery.end("no answer within \(Self.timeout)")
        }
    }

    private func ended(_ id: ObjectIdentifier) {
        guard let delivery = deliveries.removeValue(forKey: id) else { return }
        if let timer = delivery.timer { loop.cancel(timer) }
        if let transfer = delivery.transfer { multi.remove(transfer) }
    }
}

/// One request of a webhook. Used on the event loop only.
private final class Delivery: ExchangeDelegate {
    var transfer: CurlTransfer?
    var timer: LoopTimer?
    var ended: ((String?) -> Void)?
    private var status: Int?
    private var received = 0

    func end(_ reason: String?) {
        guard let ended else { return }
        self.ended = nil
        ended(reason)
    }

    func exchangeConnected() {}

    func exchangeAnswered(_ head: HTTPResponseHead) -> Bool {
        status = head.status
        return true
    }

    /// The answer's body is not used.
    func exchangeReceived(_ bytes: Span<UInt8>) -> Bool {
        received += bytes.count
        return received <= 64 << 10
    }

    func exchangeProgressed(outcome: ExchangeOutcome?) {
        guard let outcome else { return }
        guard let status else {
            let hint = outcome.kind == .unreachable ? "; or its address is not allowed (SLUICE_WEBHOOK_ALLOW)" : ""
            return end("the receiver cannot be reached: \(outcome.detail)\(hint)")
        }
        end((200..<300).contains(status) ? nil : "the receiver answered \(status)")
    }
}
