import Contract
import Testing

@testable import JobQueue

/// Running jobs in the heartbeat: long names from clients are truncated.
@Suite struct RunningJobTests {
    @Test(arguments: ["m", "é", "👩‍👩‍👧‍👦", "a\u{301}\u{301}\u{301}"]) func `names are truncated by bytes`(_ unit: String) throws {
        let name = String(repeating: unit, count: 200_000)
        let job = RunningJob(
            id: "p0-x", priority: "batch", model: name, phase: "streaming", upstream: name, attempt: 1, tokens: 0, submittedMilliseconds: 1)
        #expect((250...256).contains(job.model.utf8.count) && job.model == job.upstream)
        // A single character with many combining marks.
        let marks = RunningJob(
            id: "p0-x", priority: "batch", model: "a" + String(repeating: "\u{301}", count: 400_000), phase: "", upstream: "", attempt: 1,
            tokens: 0, submittedMilliseconds: 1)
        #expect(marks.model.utf8.count <= 256)
        var report = WorkerReport()
        report.slowest = Array(repeating: job, count: WorkerReport.slowestCount)
        #expect(report.fields.reduce(0) { $0 + $1.value.utf8.count } < 8_000)
    }
}
