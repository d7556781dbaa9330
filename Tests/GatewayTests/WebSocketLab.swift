import Contract
import JSONCodec
import JobQueue
import Logging
import NIOCore
import NIOPosix
import RedisClient
import ServiceLifecycle
import TestSupport

@testable import Gateway

/// A test fixture: complete gateways in this process, with the suite's Redis. The test acts as the worker.
struct WebSocketLab: Sendable {
    /// A running gateway.
    struct Gateway: Sendable {
        let port: Int
        let name: String
        fileprivate let group: ServiceGroup
        let task: Task<Void, any Error>

        func drain() async { await group.triggerGracefulShutdown() }
    }

    let queue: JobProducer
    private let blocking: RedisClient
    private let running = Observed<[Gateway]>([])

    fileprivate init(queue: JobProducer, blocking: RedisClient) {
        self.queue = queue
        self.blocking = blocking
    }

    /// Starts a gateway and waits until it is ready.
    func gateway(_ name: String = "g1", _ fill: (inout GatewaySettings) -> Void = { _ in }) async throws -> Gateway {
        var settings = GatewaySettings()
        settings.name = name
        settings.port = 0
        settings.authentication.apiKeys = "tenant-a:tenant-a-test-key,tenant-b:tenant-b-test-key"
        settings.drainNotice = .zero
        // Long, because a busy machine may schedule a client or a gateway late.
        settings.lease = .testDeadline
        settings.grace = .testDeadline
        settings.handshakeTimeout = .testDeadline
        settings.registerTimeout = .testDeadline
        fill(&settings)
        let ports = Observed<Int?>(nil)
        let logger = Logger(label: name, factory: { _ in SwiftLogNoOpLogHandler() })
        var service = GatewayService(
            settings: settings, queueSettings: queue.settings, redisURL: try RedisURL(PrivateRedis.current.url),
            redisSettings: .forTests, logger: logger)
        service.onListening = { port in ports.update { $0 = port } }
        let group = ServiceGroup(services: [service], logger: logger)
        let task = Task { try await group.run() }
        let port = try await ports.wait({ _ in "the gateway to listen" }) { $0 }
        let gateway = Gateway(port: port, name: name, group: group, task: task)
        running.update { $0.append(gateway) }
        try await until("the gateway to be ready") { try await HTTPCall.get(port, "/readyz").status == 200 }
        return gateway
    }

    /// Connects and registers a client.
    /// - Parameters:
    ///   - receiveBuffer: see `WebSocketClient.connect`.
    ///   - fields: further fields of REGISTER.
    func client(
        _ gateway: Gateway, key: String = "tenant-a-test-key", receiveBuffer: Int? = nil, _ fields: [(String, JSON)] = []
    ) async throws -> WebSocketClient {
        let client = try await WebSocketClient.connect(port: gateway.port, receiveBuffer: receiveBuffer)
        try await client.register(key: key, fields: fields)
        return client
    }

    /// Claims the next waiting job.
    func claim() async throws -> PlayedJob { try await PlayedJob.claimed(from: queue, blocking: blocking) }

    /// Sends a request.
    /// - Returns: the request and its job; nil if the gateway rejected the request.
    func claimedRequest(of client: WebSocketClient) async throws -> (ClientRequest, PlayedJob)? {
        let request = try await client.request("x", model: "m")
        return try await until("a rejection or a job") { () -> (ClientRequest, PlayedJob)?? in
            if request.checker.end == .failed { return .some(nil) }
            guard let job = try await PlayedJob.claimedNow(from: queue, blocking: blocking) else { return nil }
            return .some((request, job))
        }
    }

    fileprivate func stop() async {
        for gateway in running.value {
            gateway.task.cancel()
            _ = await gateway.task.result
        }
    }
}

/// Runs `body` with a lab whose gateways are stopped afterwards.
func withWebSocketLab(_ body: (WebSocketLab) async throws -> Void) async throws {
    let loop = MultiThreadedEventLoopGroup.singleton.next()
    let logger = Logger(label: "lab", factory: { _ in SwiftLogNoOpLogHandler() })
    var settings = QueueSettings()
    settings.keys = Keys(namespace: "ws\(UInt32.random(in: 0..<UInt32.max))")
    settings.queueMaximum = 5
    let url = try RedisURL(PrivateRedis.current.url)
    let client = RedisClient(url: url, settings: .forTests, eventLoop: loop, name: "commands", logger: logger)
    let blocking = RedisClient(url: url, settings: .forTests, eventLoop: loop, name: "blocking", logger: logger)
    try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { await client.run() }
        tasks.addTask { await blocking.run() }
        let lab = WebSocketLab(queue: JobProducer(redis: client, settings: settings), blocking: blocking)
        let result: Result<Void, any Error>
        do { result = .success(try await body(lab)) } catch { result = .failure(error) }
        await lab.stop()
        client.shutdown()
        blocking.shutdown()
        tasks.cancelAll()
        try result.get()
    }
}
