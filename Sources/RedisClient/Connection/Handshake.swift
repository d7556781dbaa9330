import NIOCore

/// The login on a new connection: AUTH, SELECT, CLIENT SETNAME, ROLE (after a search by sentinels), PING. A state machine without I/O: takes replies, returns actions.
struct Handshake {
    private enum Step { case authenticate, select, name, role, ping }

    enum Action {
        /// More replies follow.
        case wait
        case connected
        case refused(RedisError)
    }

    let request: RedisPipeline
    private var steps: [Step] = []
    private var next = 0
    private let url: RedisURL

    init(url: RedisURL, name: String) {
        self.url = url
        var pipeline = RedisPipeline()
        if let password = url.password {
            pipeline.append(["AUTH"] + (url.user.map { [.string($0)] } ?? []) + [.string(password)])
            steps.append(.authenticate)
        }
        if url.database > 0 {
            pipeline.append("SELECT", .integer(url.database))
            steps.append(.select)
        }
        // CLIENT SETNAME rejects names with spaces or control characters.
        let plain = String(name.unicodeScalars.map { (0x21...0x7E).contains($0.value) ? Character($0) : "_" })
        pipeline.append("CLIENT", "SETNAME", .string(plain))
        steps.append(.name)
        if case .sentinel = url.endpoint {
            pipeline.append("ROLE")
            steps.append(.role)
        }
        pipeline.append("PING")
        steps.append(.ping)
        request = pipeline
    }

    /// Handles the next reply.
    mutating func received(_ reply: RESPValue) -> Action {
        guard next < steps.count else { return .refused(RedisError(.protocolViolation, "Redis sent a reply without a command")) }
        let step = steps[next]
        next += 1
        switch (step, reply) {
        case (.role, .array(let values)):
            // A sentinel names a server before it is the primary, and a former primary for some seconds after its return.
            guard values.first?.string == "master" else {
                return .refused(
                    RedisError(.unavailable, "the server that the sentinels name is a \(values.first?.string ?? "?"), not the primary"))
            }
        case (_, .error(let text)): if let refusal = refusal(step, text) { return .refused(refusal) }
        case (.ping, .simple("PONG")), (.authenticate, .simple("OK")), (.select, .simple("OK")), (.name, .simple("OK")): break
        default: return .refused(RedisError(.protocolViolation, "unexpected reply to the handshake: \(reply.shape)"))
        }
        return next == steps.count ? .connected : .wait
    }

    /// The error for an error reply; nil when the connection is usable anyway.
    private func refusal(_ step: Step, _ text: String) -> RedisError? {
        switch step {
        case .authenticate: RedisError(.server, "Redis rejected the user or password of \(url): \(text)")
        case .select: RedisError(.server, "Redis rejected database \(url.database): \(text)")
        // An ACL may forbid CLIENT SETNAME, which is optional, and ROLE. A replica then answers READONLY to the first write.
        case .name, .role: nil
        case .ping:
            if text.hasPrefix("NOAUTH") {
                RedisError(.server, "Redis requires a password and \(url) has none: \(text)")
            } else if text.hasPrefix("LOADING") || text.hasPrefix("MASTERDOWN") {
                RedisError(.unavailable, text)
            } else {
                // Another error, such as NOPERM, still shows that the server responds.
                nil
            }
        }
    }
}
