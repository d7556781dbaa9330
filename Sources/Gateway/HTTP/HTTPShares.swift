import NIOConcurrencyHelpers

/// What the HTTP requests of each tenant hold at the moment, and how much they may. Can be used from any thread.
final class HTTPShares: Sendable {
    struct Held: Equatable {
        /// Requests that wait for their answer.
        var requests = 0
        /// Bytes of their bodies.
        var bodyBytes = 0
        /// Event streams.
        var streams = 0
    }

    private let requestMaximum: Int
    private let bodyMaximum: Int
    private let streamMaximum: Int
    private let tenants = NIOLockedValueBox<[String: Held]>([:])

    init(settings: GatewaySettings) {
        requestMaximum = settings.httpRequestsPerTenant
        bodyMaximum = settings.bodyBytesPerTenant
        streamMaximum = settings.streamsPerTenant
    }

    func held(by tenant: String) -> Held { tenants.withLockedValue { $0[tenant] ?? Held() } }

    /// - Throws: 429 when the tenant has as many requests under way as it may.
    func request(of tenant: String) throws(HTTPFailure) -> HTTPShare {
        guard add(1, to: \.requests, of: tenant, maximum: requestMaximum) else { throw HTTPFailure.tooManyUnderWay }
        return HTTPShare(of: tenant, in: self, holding: Held(requests: 1))
    }

    /// - Throws: 429 when the tenant has as many event streams as it may.
    func stream(of tenant: String) throws(HTTPFailure) -> HTTPShare {
        guard add(1, to: \.streams, of: tenant, maximum: streamMaximum) else { throw HTTPFailure.tooManyStreams }
        return HTTPShare(of: tenant, in: self, holding: Held(streams: 1))
    }

    fileprivate func hold(_ bytes: Int, for tenant: String) -> Bool { add(bytes, to: \.bodyBytes, of: tenant, maximum: bodyMaximum) }

    /// - Parameter maximum: 0: no limit.
    private func add(_ count: Int, to what: WritableKeyPath<Held, Int>, of tenant: String, maximum: Int) -> Bool {
        tenants.withLockedValue { tenants in
            let now = tenants[tenant]?[keyPath: what] ?? 0
            guard maximum == 0 || count <= maximum - now else { return false }
            tenants[tenant, default: Held()][keyPath: what] += count
            return true
        }
    }

    fileprivate func giveBack(_ held: Held, of tenant: String) {
        tenants.withLockedValue { tenants in
            guard var left = tenants[tenant] else { return }
            left.requests -= held.requests
            left.bodyBytes -= held.bodyBytes
            left.streams -= held.streams
            tenants[tenant] = left == Held() ? nil : left
        }
    }
}

/// What one request or stream holds of its tenant's share, until it is released or nobody refers to it any more.
final class HTTPShare: Sendable {
    private let tenant: String
    private let shares: HTTPShares
    private let held: NIOLockedValueBox<HTTPShares.Held>

    fileprivate init(of tenant: String, in shares: HTTPShares, holding held: HTTPShares.Held) {
        self.tenant = tenant
        self.shares = shares
        self.held = NIOLockedValueBox(held)
    }

    deinit { release() }

    /// Counts bytes of the request's body.
    /// - Throws: 429 when all bodies of the tenant would hold more than they may.
    func hold(_ bytes: Int) throws(HTTPFailure) {
        guard shares.hold(bytes, for: tenant) else { throw HTTPFailure.tooManyBytes }
        held.withLockedValue { $0.bodyBytes += bytes }
    }

    /// Gives everything back. May be called more than once.
    func release() {
        let held = held.withLockedValue { held in
            defer { held = HTTPShares.Held() }
            return held
        }
        if held != HTTPShares.Held() { shares.giveBack(held, of: tenant) }
    }
}
