import NIOCore

/// What is said on a new connection before it counts as one. A machine without I/O: replies in, what to do out.
struct Handshake {
    private enum Step { case authenticate, select, name, ping }

    enum Action {
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
        // Redis refuses names with spaces and control characters (CLIENT SETNAME).
        let plain = String(name.unicodeScalars.map { (0x21...0x7E).contains($0.value) ? Character($0) : "_" })
        pipeline.append("CLIENT", "SETNAME", .string(plain))
        pipeline.append("PING")
        steps += [.name, .ping]
        request = pipeline
    }

    mutating func received(_ reply: RESPValue) -> Action {
        guard next < steps.count else { return .refused(RedisError(.protocolViolation, "Redis answered more than was asked")) }
        let step = steps[next]
        next += 1
        switch (step, reply) {
        case (_, .error(let text)): if let refusal = refusal(step, text) { return .refused(refusal) }
        case (.ping, .simple("PONG")), (.authenticate, .simple("OK")), (.select, .simple("OK")), (.name, .simple("OK")): break
        default: return .refused(RedisError(.protocolViolation, "Redis answered the handshake by \(reply.shape)"))
        }
        return next == steps.count ? .connected : .wait
    }

    private func refusal(_ step: Step, _ text: String) -> RedisError? {
        switch step {
        case .authenticate: RedisError(.server, "Redis refuses the user or password of \(url): \(text)")
        case .select: RedisError(.server, "Redis refuses database \(url.database): \(text)")
        // An ACL may forbid it; a name is a convenience.
        case .name: nil
        case .ping:
            if text.hasPrefix("NOAUTH") {
                RedisError(.server, "Redis wants a password and \(url) has none: \(text)")
            } else if text.hasPrefix("LOADING") || text.hasPrefix("MASTERDOWN") {
                RedisError(.unavailable, text)
            } else {
                // As NOPERM: it answers, which is what was asked.
                nil
            }
        }
    }
}
