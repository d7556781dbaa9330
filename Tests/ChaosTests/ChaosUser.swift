import Contract
import Foundation
import JSONCodec
import TestSupport

/// A client that sends one request after the other, reconnects when its socket closes, and records the results.
actor ChaosUser {
    /// The maximum duration of a request including faults.
    private static let requestTimeout = Duration.seconds(75)

    private let deployment: Deployment
    private let name: Int
    private var random: SplitMix64
    private var client: WebSocketClient?
    private var session: String?
    private(set) var stories: [RequestStory] = []
    private var clientProblems: [String] = []

    /// Whether Redis may lose acknowledged writes, as a primary that dies before its replicas have them.
    private let mayLoseData: Bool

    init(_ deployment: Deployment, name: Int, seed: UInt64, mayLoseData: Bool = false) {
        self.deployment = deployment
        self.name = name
        self.mayLoseData = mayLoseData
        random = SplitMix64(seed: seed)
    }

    /// The problems of all its sockets.
    var problems: [String] { clientProblems }

    func live(until end: ContinuousClock.Instant) async { await live { ContinuousClock.now >= end } }

    func live(isOver: @Sendable () -> Bool) async {
        while !isOver(), !Task.isCancelled {
            let story = await request(RequestPlan(&random))
            stories.append(story)
            // A rejected client waits before the next request.
            if story.isRefused { try? await Task.sleep(for: .milliseconds(100)) }
        }
        if let client { await leave(client) }
    }

    private func leave(_ client: WebSocketClient) async {
        clientProblems += client.state.read { $0.problems }
        await client.abort()
        self.client = nil
    }

    // MARK: the socket

    private struct Refused: Error { let code: String }

    /// Connects and registers, with the previous session if there is one. Retries until it succeeds.
    private func socket(_ story: inout RequestStory) async throws -> WebSocketClient {
        if let client, client.isOpen { return client }
        let end = ContinuousClock.now + Self.requestTimeout
        if let client { await leave(client) }
        while true {
            let gateway = deployment.gateways[Int.random(in: 0..<deployment.gateways.count, using: &random)]
            do {
                let new = try await WebSocketClient.connect(port: gateway.other.port)
                do {
                    try await register(new)
                    client = new
                    return new
                } catch {
                    await new.abort()
                    if let refused = error as? Refused, refused.code == ErrorCodeName.sessionInvalid {
                        story.problems.append("the session \(session ?? "") is gone")
                        session = nil
                    }
                    throw error
                }
            } catch {
                guard ContinuousClock.now < end else { throw error }
                try await Task.sleep(for: .milliseconds(Int.random(in: 50...300, using: &random)))
            }
        }
    }

    private enum ErrorCodeName { static let sessionInvalid = "SESSION_INVALID" }

    private func register(_ client: WebSocketClient) async throws {
        var payload = JSONObject()
        payload["auth"] = ["type": "API_KEY", "api_key": .string(deployment.lab.key)]
        payload["platform"] = "WEB"
        payload["require_tts"] = false
        payload["enable_srs"] = false
        payload["function_calling"] = []
        payload["resume_session_id"] = session.map(JSON.string)
        try await client.send("REGISTER", .object(payload))
        let frame = try await client.state.wait({ _ in "an answer to REGISTER" }) {
            state -> WebSocketClient.Frame? in
            if let index = state.waiting.firstIndex(where: { $0.type == "REGISTER_ACK" || $0.type == "ERROR" }) {
                return state.waiting.remove(at: index)
            }
            if let code = state.closeCode { throw WaitedInVain(description: "closed with \(code)") }
            return nil
        }
        guard frame.type == "REGISTER_ACK", let id = frame.payload["session_id"]?.string else {
            throw Refused(code: frame.payload["error_code"]?.string ?? "")
        }
        session = id
        client.state.update { $0.session = id }
    }

    // MARK: a request

    private func request(_ plan: RequestPlan) async -> RequestStory {
        let model = deployment.lab.model(plan.script)
        var story = RequestStory(model: model)
        let end = ContinuousClock.now + Self.requestTimeout
        do {
            let socket: WebSocketClient
            do { socket = try await self.socket(&story) } catch {
                throw WaitedInVain(description: "no gateway took the user \(name): \(error)")
            }
            var request: ClientRequest
            do { request = try await socket.request(model: model, id: "r-\(UUID().uuidString)") } catch {
                // The socket closed during the request, which may have arrived or not, so nothing is expected.
                story.isInDoubt = true
                return story
            }
            var left = plan.leavesAfter
            while true {
                do {
                    try await follow(request, plan, &left, until: end, &story)
                    story.checker = request.checker
                    break
                } catch {
                    story.checker = request.checker
                    guard ContinuousClock.now < end else { throw error }
                }
                if let again = try await resume(request, until: end, &story) { request = again } else { break }
            }
        } catch {
            story.problems.append("user \(name), \(model): \(error); events up to \(story.checker?.lastEvent.map(\.description) ?? "none")")
            // The socket may keep the request.
            if let client { await leave(client) }
        }
        if let checker = story.checker, checker.end == .failed, checker.frames == 0, checker.last?["error_detail"]?.string == "overloaded" {
            story.isRefused = true
        }
        return story
    }

    /// Follows the request to its end and sends the planned interrupt. Throws when the socket closes.
    private func follow(
        _ request: ClientRequest, _ plan: RequestPlan, _ left: inout Int?, until end: ContinuousClock.Instant, _ story: inout RequestStory
    ) async throws {
        if let tokens = left {
            left = nil
            try await request.tokens(tokens, deadline: end - .now)
            if request.checker.end == nil { await request.client.abort() }
        }
        switch plan.interrupt {
        case _ where story.acknowledgedAt != nil: break
        case .never: break
        case .after(let milliseconds):
            if !story.askedForInterrupt { try await Task.sleep(for: .milliseconds(milliseconds)) }
            try await interrupt(request, &story)
        case .tokens(let count):
            try await request.tokens(count, deadline: end - .now)
            try await interrupt(request, &story)
        }
        try await request.ended(deadline: end - .now)
    }

    private func interrupt(_ request: ClientRequest, _ story: inout RequestStory) async throws {
        guard request.checker.end == nil else { return }
        story.askedForInterrupt = true
        let answer = try await request.client.interrupt(.string(request.id))
        if answer["status"] == "SUCCESS" { story.acknowledgedAt = monotonicNanoseconds() }
    }

    /// Resumes the request on a new socket; nil if it was never accepted, or Redis has lost it.
    private func resume(_ request: ClientRequest, until end: ContinuousClock.Instant, _ story: inout RequestStory) async throws
        -> ClientRequest?
    {
        let before = request.checker
        guard before.end == nil else { return nil }
        while true {
            story.reconnects += 1
            let client = try await socket(&story)
            let again: ClientRequest
            do {
                again = try await client.resume(request)
                // The first frame or the rejection.
                let id = request.id
                try await client.state.wait(deadline: end - .now, { _ in "an answer to RESUME of \(id)" }) { state -> Void? in
                    guard let checker = state.requests[id] else { return nil }
                    if checker.frames > before.frames || checker.end != nil { return () }
                    if let code = state.closeCode { throw WaitedInVain(description: "closed with \(code)") }
                    return nil
                }
            } catch {
                guard ContinuousClock.now < end else { throw error }
                continue
            }
            let checker = again.checker
            guard checker.end == .failed, checker.frames == before.frames, let code = checker.last?["error_code"]?.string else {
                return again
            }
            let detail = checker.last?["error_detail"]?.string ?? ""
            switch code {
            case "SESSION_INVALID" where before.frames == 0, "INTERNAL_ERROR" where before.frames == 0 && detail == "internal":
                story.isRefused = true
                return nil
            case "SESSION_INVALID" where mayLoseData:
                story.isForgotten = true
                return nil
            case "SESSION_INVALID":
                throw WaitedInVain(description: "the request that had begun is unknown now: \(checker.last?.text ?? "")")
            case "SERVER_BUSY" where detail == "overloaded", "RATE_LIMITED" where detail != "rate_limited":
                // It cannot be replayed now, or its submission was rejected after the RESUME. Then the next RESUME gets SESSION_INVALID.
                await leave(client)
                guard ContinuousClock.now < end else { throw WaitedInVain(description: "RESUME is refused: \(checker.last?.text ?? "")") }
                _ = try await deployment.readyGateway(until: end)
            default: return again
            }
        }
    }
}
