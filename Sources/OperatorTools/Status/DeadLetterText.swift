import Contract
import JSONCodec
import JobQueue
import Observability
import Support

/// A dead letter for `sluice dead list`, without the prompt.
extension DeadLetter {
    private var died: Timestamp? { diedMilliseconds.map { Timestamp(milliseconds: $0) } }

    package var json: JSON {
        [
            "entry": .string(entry), "partition": .integer(partition), "id": id.map(JSON.string) ?? .null, "code": .string(code),
            "message": .string(message), "crashes": .integer(crashes), "model": job?.model.map(JSON.string) ?? .null,
            "class": job.map { .string($0.priority.rawValue) } ?? .null, "owner": job?.owner.map(JSON.string) ?? .null,
            "died": died.map { .string($0.description) } ?? .null,
        ]
    }

    /// The headings of `cells`.
    package static var columns: [String] { ["JOB", "DIED", "CODE", "CRASHES", "MODEL", "MESSAGE"] }

    package var cells: [String] {
        [id ?? entry, died?.description ?? "-", code, String(crashes), job?.model ?? "-", message.cut(toBytes: 300)]
    }
}

extension DeadLetterRefusal {
    /// The error of a command that could not retry this letter.
    package func failure(of letter: DeadLetter) -> CommandFailure {
        switch self {
        case .invalidJob:
            CommandFailure(
                .failed, "sluice: the dead letter \(letter.entry) contains no valid job, so it cannot be retried: \(letter.message)")
        case .queueFull(let priority):
            CommandFailure(.failed, "sluice: the queue \(priority.rawValue) is full, so the dead letter was kept; retry later")
        case .ownerFull:
            CommandFailure(.failed, "sluice: too many jobs of its owner are waiting, so the dead letter was kept; retry later")
        case .quotaExhausted:
            CommandFailure(.failed, "sluice: its owner's tokens of this day are used up, so the dead letter was kept; retry tomorrow")
        case .conflict:
            CommandFailure(.failed, "sluice: the dead letter \(letter.entry) was retried before with a different job")
        }
    }
}
