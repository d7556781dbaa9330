import Contract
import Foundation
import JSONCodec

/// A front end that submits, follows and interrupts jobs with plain Redis commands as described by the contract, like a program in another
/// language.
package final class FrontEnd: Sendable {
    package let redis: RawRedis
    private let server: PrivateRedis

    package init(_ server: PrivateRedis) async throws {
        self.server = server
        redis = try await server.connect()
    }

    package func close() async { await redis.close() }

    /// A job's JSON with a message and this model.
    package static func job(id: String, model: String, fields: [(String, JSON)] = []) -> String {
        var job = JSONObject()
        job["id"] = .string(id)
        job["request"] = ["model": .string(model), "messages": [["role": "user", "content": "hello"]]]
        for (name, value) in fields { job[name] = value }
        return JSON.object(job).text
    }

    package static func newID() -> String { "hand-" + UUID().uuidString }

    /// Subscribes to the job's output channel, then adds the job to the queue.
    package func submit(
        model: String, id: String = newID(), class priority: String = "standard", fields: [(String, JSON)] = []
    ) async throws -> FollowedJob {
        let job = try await follow(id, model: model)
        let reply = try await redis.send("XADD", "{sluice.0}:queue:\(priority)", "*", "job", Self.job(id: id, model: model, fields: fields))
        guard reply.string != nil, case .bulk = reply else { throw RawRedisError(description: "XADD answered \(reply)") }
        return job
    }

    package func follow(_ id: String, model: String?) async throws -> FollowedJob {
        try await FollowedJob(id: id, model: model, listener: server.connect(), redis: redis)
    }

    /// Sets the interrupt key.
    package func store(interrupt id: String, reason: String = "USER_STOP") async throws {
        try await redis.send("SET", "{sluice.0}:interrupt:\(id)", Self.interrupt(id, reason), "EX", "86400")
    }

    /// Publishes the interrupt without setting the key.
    /// - Returns: the number of subscribers that received it.
    @discardableResult
    package func publish(interrupt id: String, reason: String = "USER_STOP") async throws -> Int {
        try await redis.send("PUBLISH", "{sluice.0}:cancel", Self.interrupt(id, reason)).integer ?? 0
    }

    private static func interrupt(_ id: String, _ reason: String) -> String {
        JSON.object(JSONObject([.init(name: "id", value: .string(id)), .init(name: "reason", value: .string(reason))])).text
    }
}

/// A job whose output channel is subscribed to. Events are checked on arrival.
package final class FollowedJob: Sendable {
    package let id: String
    package let model: String?
    private let redis: RawRedis
    private let checker: Observed<EventChecker>
    private let listening: Task<Void, Never>

    fileprivate init(id: String, model: String?, listener: RawRedis, redis: RawRedis) async throws {
        self.id = id
        self.model = model
        self.redis = redis
        let checker = Observed(EventChecker(job: id, model: model, live: true))
        self.checker = checker
        let messages = try await listener.subscribe("{sluice.0}:out:\(id)")
        listening = Task {
            for await message in messages {
                guard let events = (try? JSON(parsing: message.text))?.array else { continue }
                checker.update { checker in for event in events { checker.take(event) } }
            }
            await listener.close()
        }
    }

    deinit { listening.cancel() }

    package var received: EventChecker { checker.value }

    /// Waits until this number of the simulator's tokens has been received.
    package func tokens(_ count: Int, deadline: Duration = .testDeadline) async throws {
        let length = SimulatorText.tokens(count).utf8.count
        try await checker.wait(deadline: deadline, { "\(count) tokens of \(self.id); received \($0.types.suffix(5))" }) {
            $0.text.utf8.count >= length || $0.terminal != nil ? () : nil
        }
    }

    /// Waits for the terminal event.
    @discardableResult
    package func ended(deadline: Duration = .testDeadline) async throws -> JSON {
        do {
            return try await checker.wait(deadline: deadline, { "the end of \(self.id); received \($0.types.suffix(5))" }) { $0.terminal }
        } catch {
            let record = try? await record()
            throw WaitedInVain(description: "\(error); its record is \(record ?? [:])")
        }
    }

    package func record() async throws -> [String: String] { try await redis.send("HGETALL", "{sluice.0}:job:\(id)").fields }

    /// The event log in Redis, checked separately.
    package func log() async throws -> EventChecker { try await Self.log(of: id, model: model, redis) }

    package static func log(of id: String, model: String?, _ redis: RawRedis) async throws -> EventChecker {
        var checker = EventChecker(job: id, model: model, live: false)
        for entry in try await redis.send("XRANGE", "{sluice.0}:log:\(id)", "-", "+").array ?? [] {
            guard let parts = entry.array, parts.count == 2, let event = parts[1].fields["e"], let json = try? JSON(parsing: event) else {
                throw RawRedisError(description: "an entry of the log is \(entry)")
            }
            if json["id"]?.string != parts[0].string { throw RawRedisError(description: "entry \(parts[0]) holds \(event)") }
            checker.take(json)
        }
        return checker
    }
}
