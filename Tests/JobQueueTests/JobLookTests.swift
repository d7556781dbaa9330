import Contract
import RedisClient
import TestSupport
import Testing

@testable import JobQueue

/// Looks at silent jobs: when, and what they find.
@Suite(.serialized) struct JobLookTests {
    @Test func `looks become rarer while a job is silent`() {
        var timer = LookTimer()
        var looks: [Int] = []
        var entryChecks: [Int] = []
        var reviews: [Int] = []
        for check in 1...300 {
            if timer.isDue(hasNews: false) { looks.append(check) }
            if timer.checksEntry { entryChecks.append(check) }
            if timer.reviewsLog { reviews.append(check) }
        }
        #expect(Array(looks.prefix(5)) == [1, 3, 7, 11, 15])
        #expect(zip(looks, looks.dropFirst()).allSatisfy { $1 - $0 <= LookTimer.longest })
        #expect(entryChecks == [64, 128, 256] && reviews == [8, 16, 32, 64, 128, 256])
        let isDue = timer.isDue(hasNews: true)
        #expect(!isDue && !timer.checksEntry)
        let isDueAgain = timer.isDue(hasNews: false)
        #expect(isDueAgain)
    }

    private func look(_ fixture: QueueFixture, _ jobs: [JobLook]) async throws -> LookResult {
        try await fixture.queue.look(at: jobs, partition: 0)
    }

    @Test func `a look finds what readers lack, and jobs that are gone`() async throws {
        try await QueueFixture.run { fixture in
            let running = try await fixture.running(QueueFixture.job())
            let waiting = QueueFixture.job("p0-\(ULID(milliseconds: 2))")
            #expect(try await fixture.queue.submit(waiting, options: SubmitOptions()) == .accepted)
            let gone = JobID("p0-gone")!
            let started = EventID(attempt: 1, sequence: 0)
            let first = try await look(
                fixture,
                [
                    JobLook(id: running.job.id, after: nil, entry: nil), JobLook(id: gone, after: nil, entry: nil),
                    JobLook(id: waiting.id, after: nil, entry: nil),
                ])
            #expect(first.news.map(\.id) == [running.job.id] && first.news.first?.first == started)
            #expect(first.gone == [gone] && first.unlisted.isEmpty)
            #expect(first.entries.map(\.id) == [running.job.id, waiting.id])
            #expect(first.entries.first?.entry == "standard " + running.entry.id)
            let entries = first.entries.map(\.entry)
            let quiet = [
                JobLook(id: running.job.id, after: started, entry: entries[0]), JobLook(id: waiting.id, after: nil, entry: entries[1]),
            ]
            let second = try await look(fixture, quiet)
            #expect(second.news.isEmpty && second.gone.isEmpty && second.unlisted.isEmpty && second.entries.isEmpty)
            // An operator trims the queue: only the last job keeps its entry.
            _ = try await fixture.redis.command("XTRIM", fixture.keys.queue(.standard, partition: 0), "MAXLEN", "1")
            #expect(try await look(fixture, quiet).unlisted == [running.job.id])
            _ = try await fixture.redis.command("DEL", fixture.keys.queue(.standard, partition: 0))
            #expect(try await look(fixture, quiet).unlisted == [running.job.id, waiting.id])
        }
    }

    @Test func `a log or a queue of the wrong type does not hide other jobs`() async throws {
        try await QueueFixture.run { fixture in
            let running = try await fixture.running(QueueFixture.job())
            let spoilt = QueueFixture.job("p0-\(ULID(milliseconds: 2))")
            _ = try await fixture.redis.command("SET", fixture.keys.log(spoilt.id), "x")
            _ = try await fixture.redis.command("SET", fixture.keys.queue(.batch, partition: 0), "x")
            let found = try await look(
                fixture, [JobLook(id: spoilt.id, after: nil, entry: "batch 1-1"), JobLook(id: running.job.id, after: nil, entry: nil)])
            #expect(found.news.map(\.id) == [running.job.id] && found.gone.isEmpty && found.unlisted == [spoilt.id])
        }
    }

    /// The record was deleted or overwritten, and the queue with it, so that no worker claims the job. Or the end is in a new log.
    @Test(arguments: ["DEL", "SET", "LOG"]) func `readers are told an end that no message and no look shows`(_ change: String) async throws
    {
        try await QueueFixture.run { fixture in
            let job = QueueFixture.job()
            let (_, received) = try await fixture.followed(job)
            // The first look, which reads the entry.
            try await until("the entry to be known") { await fixture.feed.knowsEntry(of: job.id) }
            let (redis, record) = (fixture.redis, fixture.keys.record(job.id))
            switch change {
            case "LOG":
                let log = fixture.keys.log(job.id)
                try await redis.command("DEL", log)
                let end = #"{"id":"1-0","type":"interrupted","reason":"USER_STOP","phase":"queued"}"#
                try await redis.command("XADD", log, "1-0", "e", end)
            default:
                try await redis.command("DEL", fixture.keys.queue(.standard, partition: 0), record)
                if change == "SET" { try await redis.command("SET", record, "x") }
            }
            let end = try await received.wait({ "the end, \($0)" }) { $0.count == 4 ? $0.last : nil }
            #expect(end.id.description == "2-0" && end.event.type == (change == "LOG" ? "interrupted" : "failed"))
        }
    }

    @Test func `a look takes as many jobs as the feed passes at once`() async throws {
        try await QueueFixture.run { fixture in
            let jobs = (0..<500).map { JobLook(id: JobID("p0-\($0)")!, after: nil, entry: nil) }
            let found = try await look(fixture, jobs)
            #expect(found.gone.count == 500)
        }
    }
}

extension EventFeed {
    fileprivate func knowsEntry(of id: JobID) -> Bool { jobs[id]?.entry != nil }
}
