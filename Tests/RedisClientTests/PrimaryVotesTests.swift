import Testing

@testable import RedisClient

@Suite struct PrimaryVotesTests {
    private let old = ServerAddress(host: "10.0.0.1", port: 6379)
    private let new = ServerAddress(host: "10.0.0.2", port: 6379)
    private let refused = RedisError(.unavailable, "Connection refused")

    @Test func `a majority decides before the last answer`() {
        var votes = PrimaryVotes(service: "main", sentinels: 3)
        #expect(votes.answered(.success(old)) == .undecided)
        #expect(votes.answered(.success(new)) == .undecided)
        #expect(votes.answered(.success(new)) == .primary(new))
    }

    @Test func `one sentinel alone is believed when the others fail`() {
        var votes = PrimaryVotes(service: "main", sentinels: 3)
        #expect(votes.answered(.failure(refused)) == .undecided)
        #expect(votes.answered(.success(new)) == .undecided)
        #expect(votes.answered(.failure(refused)) == .primary(new))
        var single = PrimaryVotes(service: "main", sentinels: 1)
        #expect(single.answered(.success(old)) == .primary(old))
    }

    @Test func `after the time the answers so far decide`() {
        var votes = PrimaryVotes(service: "main", sentinels: 5)
        #expect(votes.timeIsOver() == .none(RedisError(.unavailable, "no sentinel has named the primary of \"main\" in time")))
        _ = votes.answered(.success(old))
        _ = votes.answered(.success(new))
        #expect(votes.timeIsOver() == .primary(old))
        _ = votes.answered(.success(new))
        #expect(votes.timeIsOver() == .primary(new))
    }

    @Test func `an answer that an operator must act upon is reported before one that passes`() {
        var votes = PrimaryVotes(service: "main", sentinels: 2)
        _ = votes.answered(.failure(refused))
        guard case .none(let error) = votes.answered(.failure(RedisError(.server, "NOAUTH"))) else {
            Issue.record("no error")
            return
        }
        #expect(error.code == .server && error.message.contains("NOAUTH"))
    }

    @Test(arguments: [
        ("main 10.0.0.1 6379 10.0.0.2 6380", "10.0.0.2:6380"), ("main a 1 2001:db8::1 6380", "[2001:db8::1]:6380"),
        ("main-2 10.0.0.1 6379 10.0.0.2 6380", nil), ("main 10.0.0.1 6379 10.0.0.2 x", nil), ("main", nil), ("main a 1 b", nil),
        ("main a 1 b 65536", nil),
    ]) func `announcements of a new primary`(_ message: String, _ expected: String?) {
        #expect(SentinelWatch.newPrimary(in: message, of: "main")?.description == expected)
    }
}
