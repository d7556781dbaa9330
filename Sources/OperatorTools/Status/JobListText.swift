import Contract
import JobQueue
import Observability
import Support

/// A row of `sluice job list`.
extension JobList.Item {
    /// The headings of `cells`.
    package static var columns: [String] { ["JOB", "STATE", "CLASS", "MODEL", "ATTEMPT", "WORKER", "SUBMITTED", "TOOK", "CODE"] }

    package var cells: [String] {
        let submitted = submittedMilliseconds
        let end = record.count("finished_ms") ?? WallClock.milliseconds
        return [
            id, record.fields["state"] ?? "-", record.fields["class"] ?? "-", record.fields["model"] ?? "-",
            record.fields["attempt"] ?? "-", record.fields["worker"] ?? "-",
            submitted == 0 ? "-" : Timestamp(milliseconds: Int64(submitted)).description,
            submitted == 0 ? "-" : Quantity.span(milliseconds: max(0, end.saturatingSubtracting(submitted))),
            record.fields["code"] ?? record.fields["reason"] ?? "-",
        ]
    }
}
