import Contract
import JSONCodec
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

/// Shares of the connection to Redis between owners.
@Suite(.timeLimit(.minutes(2))) struct OwnerTurnsTests {
    @Test func `calls of an owner wait in order, those of others do not`() async throws {
        let turns = OwnerTurns(maximum: 100)
        await turns.begin(60, of: "a")
        let order = Observed<[Int]>([])
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            for (number, bytes) in [50, 500, 10].enumerated() {
                tasks.addTask {
                    await turns.begin(bytes, of: "a")
                    order.update { $0.append(number) }
                }
                try await until("call \(number) to wait") { turns.load(of: "a").waiting == number + 1 }
            }
            await turns.begin(100, of: "b")
            #expect(turns.load(of: "a").bytes == 60)
            turns.end(60, of: "a")
            try await until("the first call") { order.value == [0] }
            // A call above the maximum runs alone.
            #expect(turns.load(of: "a").bytes == 50)
            turns.end(50, of: "a")
            try await until("the second call") { order.value == [0, 1] }
            #expect(turns.load(of: "a").bytes == 500)
            turns.end(500, of: "a")
            try await until("the third call") { order.value == [0, 1, 2] }
            turns.end(10, of: "a")
            turns.end(100, of: "b")
            #expect(turns.load(of: "a") == (0, 0))
            #expect(turns.load(of: "b") == (0, 0))
        }
    }

    /// While Redis answers slowly, one owner's large jobs do not fill the connection.
    @Test func `large submissions of one owner are sent in turns`() async throws {
        try await QueueFixture.run { fixture in
            let (queue, turns) = (fixture.queue, fixture.queue.submissionTurns)
            @Sendable func submit(_ number: Int, bytes: Int, owner: String) async throws -> Submission {
                let text = JSON.string(String(repeating: "x", count: bytes))
                let job = Job(
                    id: try #require(JobID("p0-\(ULID(milliseconds: 1))")), priority: .standard,
                    request: try #require(JSON(dictionaryLiteral: ("user", text)).object), owner: owner)
                return try await queue.submit(job, options: SubmitOptions())
            }
            // Loads the script before Redis pauses.
            #expect(try await submit(0, bytes: 10, owner: "b") == .accepted)
            try await fixture.redis.command("CLIENT", "PAUSE", "60000", "WRITE")
            try await withThrowingTaskGroup(of: Submission.self) { tasks in
                for number in 0..<10 { tasks.addTask { try await submit(number, bytes: 100_000, owner: "a") } }
                try await until("the owner's submissions to wait") { turns.load(of: "a").waiting == 8 }
                #expect(turns.load(of: "a").bytes < 256 << 10)
                // Neither a small one nor another owner's waits for a turn.
                tasks.addTask { try await submit(11, bytes: 10_000, owner: "a") }
                tasks.addTask { try await submit(12, bytes: 100_000, owner: "b") }
                try await until("the other owner's submission") { turns.load(of: "b").bytes > 0 }
                #expect(turns.load(of: "a").waiting == 8)
                try await fixture.redis.command("CLIENT", "UNPAUSE")
                for try await submission in tasks { #expect(submission == .accepted) }
            }
            #expect(turns.load(of: "a") == (0, 0))
        }
    }
}
