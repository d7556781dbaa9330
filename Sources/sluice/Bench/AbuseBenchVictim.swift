import NIOCore
import NIOPosix

/// A tenant within its limits, at an address of its own. Measures its latency during an attack by another tenant.
struct AbuseVictim: Sendable {
    /// A kind of request whose latency is measured.
    enum Probe: String, CaseIterable, Sendable, Comparable {
        /// A small REQUEST on a registered WebSocket, until its first frame.
        case request
        /// `GET /v1/models` on a new connection.
        case models
        /// `GET /healthz` on a new connection.
        case health
        /// Registration of a new WebSocket with an account and a password.
        case login

        /// Time between two probes.
        var interval: Duration {
            switch self {
            case .request: .milliseconds(25)
            case .models, .health: .milliseconds(50)
            case .login: .milliseconds(500)
            }
        }

        /// Number of clients that take turns, so that a slow answer does not delay the following probes: with a single client, latencies
        /// above the interval would add up.
        var clients: Int {
            switch self {
            case .request: 16
            case .models, .health: 8
            case .login: 1
            }
        }

        static func < (left: Probe, right: Probe) -> Bool { left.rawValue < right.rawValue }
    }

    static let key = "victim-key-0123456789"
    static let account = "victim-account"
    static let password = "victim-password-0123"
    /// bcrypt hash of the password, cost 10.
    static let passwordHash = "$2b$10$tdhNxeYXgQ6lDAuQvVQqe.yLsQyYACuy8qgGBuF8txtVxr2wrKJwC"

    let gateway: ListenAddress
    let group: any EventLoopGroup
    /// Timeout of a probe.
    let patience: TimeAmount

    /// Measures for a time. Latency is counted from a probe's scheduled time, so that a stall counts for all probes that were due during it
    /// (avoiding "coordinated omission").
    func measure(_ probes: [Probe], for time: Duration) async -> [Probe: AbuseMeasurement] {
        await withTaskGroup(of: (Probe, AbuseMeasurement).self) { tasks in
            let start = ContinuousClock.now
            for probe in probes { tasks.addTask { (probe, await measure(probe, from: start, for: time)) } }
            return await tasks.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
    }

    private func measure(_ probe: Probe, from start: ContinuousClock.Instant, for time: Duration) async -> AbuseMeasurement {
        await withTaskGroup(of: AbuseMeasurement.self) { tasks in
            for client in 0..<probe.clients { tasks.addTask { await measure(probe, client: client, from: start, for: time) } }
            return await tasks.reduce(into: AbuseMeasurement(time: time)) { $0.add($1) }
        }
    }

    /// Measures every `probe.clients`th probe.
    private func measure(
        _ probe: Probe, client: Int, from start: ContinuousClock.Instant, for time: Duration
    ) async -> AbuseMeasurement {
        var measurement = AbuseMeasurement(time: time)
        var socket: AbuseConnection?
        defer { socket?.close() }
        if probe == .request { socket = try? await connect() }
        let interval = probe.interval * probe.clients
        var due = start + probe.interval * client
        var number = client
        while due < start + time {
            if ContinuousClock.now < due { try? await Task.sleep(until: due, clock: .continuous) }
            guard ContinuousClock.now < start + time else {
                // Not started in time: its latency is at least this long.
                measurement.add(due - start, latency: ContinuousClock.now - due)
                due += interval
                continue
            }
            let failure: String?
            let answered: ContinuousClock.Instant
            switch probe {
            case .request: (failure, answered) = await request(number, on: &socket)
            case .models: (failure, answered) = await get("/v1/models")
            case .health: (failure, answered) = await get("/healthz")
            case .login: (failure, answered) = await logIn()
            }
            measurement.add(due - start, latency: answered - due)
            if let failure { measurement.failures.append(failure) }
            due += interval
            number += probe.clients
        }
        return measurement
    }

    /// Sends a request and waits for its end.
    /// - Returns: the failure, nil when the request was answered completely; and the time of the first frame.
    private func request(_ number: Int, on socket: inout AbuseConnection?) async -> (String?, ContinuousClock.Instant) {
        if socket?.isOpen != true {
            socket?.close()
            socket = try? await connect()
        }
        guard let socket else { return ("no socket", .now) }
        let message = AbuseMessage.frame(AbuseMessage.request("v\(number)"))
        let error: StaticString = #""msg_type":"ERROR""#
        let first = await socket.exchange(message, for: [error, #""msg_type":"RESPONSE""#], within: patience)
        let answered = ContinuousClock.now
        switch first {
        case 1:
            let last = await socket.expect([error, #""finish_reason":"#], within: patience)
            return (last == 1 ? nil : "request not finished", answered)
        case 0: return ("request refused", answered)
        default:
            // A late answer must not be taken for the answer to the next request.
            socket.close()
            return ("request not answered", answered)
        }
    }

    /// Opens and registers a WebSocket; nil when the gateway rejects it.
    private func connect(_ register: ByteBuffer = AbuseMessage.register(key: key)) async throws -> AbuseConnection? {
        let socket = try await AbuseConnection.open(to: gateway, group: group)
        guard await socket.exchange(AbuseMessage.upgrade(gateway), for: ["HTTP/1.1 101"], within: patience) != nil,
            await socket.exchange(register, for: [#""msg_type":"ERROR""#, "REGISTER_ACK"], within: patience) == 1
        else {
            socket.close()
            return nil
        }
        return socket
    }

    private func logIn() async -> (String?, ContinuousClock.Instant) {
        do {
            let socket = try await connect(AbuseMessage.logIn(Self.account, password: Self.password))
            socket?.close()
            return (socket == nil ? "log-in refused" : nil, .now)
        } catch {
            return ("log-in not connected: \(error)", .now)
        }
    }

    private func get(_ path: String) async -> (String?, ContinuousClock.Instant) {
        do {
            let connection = try await AbuseConnection.open(to: gateway, group: group)
            defer { connection.close() }
            let head = AbuseMessage.head("GET", path, host: gateway, key: Self.key, headers: ["Connection: close"])
            let mark = await connection.exchange(
                ByteBuffer(string: head), for: ["HTTP/1.1 200", "HTTP/1.1 "], within: patience)
            return (mark == 0 ? nil : "\(path) \(mark == nil ? "not answered" : "refused")", .now)
        } catch {
            return ("\(path) not connected: \(error)", .now)
        }
    }
}

/// The latencies and failures of one kind of probe.
struct AbuseMeasurement: Sendable {
    private static let windows = 3

    private let time: Duration
    /// Nanoseconds, by the window in which the probe was due.
    private var latencies = [[UInt64]](repeating: [], count: windows)
    var failures: [String] = []

    init(time: Duration) { self.time = time }

    /// - Parameter offset: the probe's scheduled time since the start.
    mutating func add(_ offset: Duration, latency: Duration) {
        let window = min(Self.windows - 1, max(0, Int(offset / time * Double(Self.windows))))
        latencies[window].append(UInt64(max(0, latency / .nanoseconds(1))))
    }

    mutating func add(_ other: AbuseMeasurement) {
        for window in latencies.indices { latencies[window] += other.latencies[window] }
        failures += other.failures
    }

    var count: Int { latencies.reduce(0) { $0 + $1.count } }

    /// A percentile over the whole time, milliseconds.
    func percentile(_ percent: Double) -> Double { Self.percentile(percent, of: latencies.flatMap { $0 }) }

    /// The median of the p99 of three windows, milliseconds. Robust against a single stall of the machine.
    var steadyP99: Double { latencies.filter { !$0.isEmpty }.map { Self.percentile(99, of: $0) }.sorted().median }

    private static func percentile(_ percent: Double, of latencies: [UInt64]) -> Double {
        guard !latencies.isEmpty else { return 0 }
        let rank = Int((Double(latencies.count) * percent / 100).rounded(.up))
        return Double(latencies.sorted()[min(latencies.count - 1, max(0, rank - 1))]) / 1_000_000
    }
}

extension [Double] {
    /// The median of sorted numbers; 0 when there are none.
    fileprivate var median: Double { isEmpty ? 0 : self[count / 2] }
}
