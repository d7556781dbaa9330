import Testing

@testable import JobQueue

struct WorkerReportTests {
    @Test func `durations that leave the last minute are no news, all other changes are`() {
        var before = WorkerReport()
        before.tokens = 5
        before.queueWait.record(microseconds: 300)
        before.queueWait.record(microseconds: 5_000)
        before.firstToken.record(microseconds: 90_000)
        #expect(!before.isNews(after: before))
        var fewer = before
        fewer.queueWait = LatencyBuckets()
        fewer.queueWait.record(microseconds: 5_000)
        fewer.firstToken = LatencyBuckets()
        #expect(!fewer.isNews(after: before))
        #expect(before.isNews(after: fewer))
        // One duration has left the minute, another was measured.
        var other = fewer
        other.interruptClose.record(microseconds: 200)
        #expect(other.isNews(after: before))
        let changes: [(inout WorkerReport) -> Void] = [
            { $0.tokens = 6 }, { $0.inFlight = 1 }, { $0.isDraining = true }, { $0.tokensPerSecond = 0.5 }, { $0.models = ["a"] },
            {
                $0.slowest = [
                    RunningJob(
                        id: "j", priority: "batch", model: "m", phase: "queued", upstream: "u", attempt: 1, tokens: 0,
                        submittedMilliseconds: 1)
                ]
            },
        ]
        for change in changes {
            var changed = fewer
            change(&changed)
            #expect(changed.isNews(after: before))
        }
    }
}
