/// How a running job uses a slot of its worker.
enum SlotUse: Sendable {
    case occupied
    /// It waits for a limit of an upstream and leaves its slot to other jobs.
    case waitsForLimit
    /// The worker no longer owns the job.
    case released
}
