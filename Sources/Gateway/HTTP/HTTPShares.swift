import NIOConcurrencyHelpers

/// The quotas of each tenant's HTTP requests on this gateway: open requests, bytes of bodies, and event streams. Thread-safe.
final class HTTPShares: Sendable {
    /// The amounts that a tenant or a request uses.
    struct Held: Equatable {
        /// Requests without a complete response.
        var requests = 0
        /// Bytes of request bodies in memory.
        var bodyBytes = 0
        /// Open event streams.
        var streams = 0
    }

    fileprivate let parsing = ParsingTurns()
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

    /// Counts a request until the returned share is released.
    /// - Throws: 429 when the tenant has reached its limit of open requests.
    func request(of tenant: String) throws(HTTPErrorResponse) -> HTTPShare {
        guard add(1, to: \.requests, of: tenant, maximum: requestMaximum) else { throw HTTPErrorResponse.tooManyUnderWay }
        return HTTPShare(of: tenant, in: self, holding: Held(requests: 1))
    }

    /// Counts an event stream until the returned share is released.
    /// - Throws: 429 when the tenant has reached its limit of event streams.
    func stream(of tenant: String) throws(HTTPErrorResponse) -> HTTPShare {
        guard add(1, to: \.streams, of: tenant, maximum: streamMaximum) else { throw HTTPErrorResponse.tooManyStreams }
        return HTTPShare(of: tenant, in: self, holding: Held(streams: 1))
    }

    fileprivate func hold(_ bytes: Int, for tenant: String) -> Bool { add(bytes, to: \.bodyBytes, of: tenant, maximum: bodyMaximum) }

    /// - Parameter maximum: the limit; 0 for none.
    /// - Returns: false when the limit would be exceeded; nothing is counted then.
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

/// The part of a tenant's quota that one request or stream uses, until it is released or deallocated. Thread-safe.
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

    /// Counts bytes of the request body.
    /// - Throws: 429 when the tenant's bodies would exceed their limit.
    func hold(_ bytes: Int) throws(HTTPErrorResponse) {
        guard shares.hold(bytes, for: tenant) else { throw HTTPErrorResponse.tooManyBytes }
        held.withLockedValue { $0.bodyBytes += bytes }
    }

    /// Parses a body in turn with the tenant's other large bodies; see `ParsingTurns`.
    /// - Throws: the error of `parse`.
    func parse<Value, Failure: Error>(
        _ body: [UInt8], _ parse: ([UInt8]) throws(Failure) -> Value
    ) async throws(Failure) -> Value {
        try await shares.parsing.run(body.count, of: tenant) { () throws(Failure) in try parse(body) }
    }

    /// Returns the whole share to the tenant's quota. Further calls do nothing.
    func release() {
        let held = held.withLockedValue { held in
            defer { held = HTTPShares.Held() }
            return held
        }
        if held != HTTPShares.Held() { shares.giveBack(held, of: tenant) }
    }
}
