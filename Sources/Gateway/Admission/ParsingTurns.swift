import DequeModule
import NIOConcurrencyHelpers

/// Lets each tenant parse one large HTTP body at a time. Thread-safe.
///
/// HTTP bodies are parsed on Swift's thread pool, which has one thread for each core and answers everyone's requests, probes included.
/// A tenant that sends many large bodies at once would otherwise occupy all of its threads.
final class ParsingTurns: Sendable {
    /// Size in bytes up to which a body needs no turn; parsing it takes less than about 2 ms.
    static let smallSize = 64 << 10

    /// For each tenant with a running turn, the requests that wait for theirs.
    private let waiting = NIOLockedValueBox<[String: Deque<CheckedContinuation<Void, Never>>]>([:])

    /// The number of waiting requests of a tenant; nil when none of its bodies is being parsed.
    func waiting(of tenant: String) -> Int? { waiting.withLockedValue { $0[tenant]?.count } }

    /// Runs `body`, after the earlier large bodies of the same tenant.
    /// - Parameter bytes: size of the HTTP body.
    /// - Throws: the error of `body`.
    func run<Value, Failure: Error>(
        _ bytes: Int, of tenant: String, _ body: () throws(Failure) -> Value
    ) async throws(Failure) -> Value {
        guard bytes > Self.smallSize else { return try body() }
        await withCheckedContinuation { continuation in
            let isFirst = waiting.withLockedValue { waiting in
                guard waiting[tenant] == nil else {
                    waiting[tenant]?.append(continuation)
                    return false
                }
                waiting[tenant] = []
                return true
            }
            if isFirst { continuation.resume() }
        }
        defer { end(of: tenant) }
        return try body()
    }

    /// Ends a turn and starts the next one of the tenant.
    private func end(of tenant: String) {
        let next = waiting.withLockedValue { waiting in
            let next = waiting[tenant]?.popFirst()
            if next == nil { waiting[tenant] = nil }
            return next
        }
        next?.resume()
    }
}
