import Contract
import Metrics

/// What a worker counts. Labels are bounded: never an id, never a tenant.
struct WorkerMetrics: Sendable {
    let tokens = Counter(label: "sluice_tokens_relayed_total")
    let leasesLost = Counter(label: "sluice_leases_lost_total")
    let leasesRenewed = Counter(label: "sluice_leases_renewed_total")
    let takeovers = Counter(label: "sluice_takeovers_total")
    let claims = Counter(label: "sluice_jobs_claimed_total")
    let rejected = Counter(label: "sluice_entries_rejected_total")
    let cancelIgnored = Counter(label: "sluice_cancel_messages_ignored_total")
    /// From the worker's sight of the signal to the upstream's socket being closed.
    let interruptClosed = Timer(label: "sluice_interrupt_close_seconds")
    private let ended: [String: Counter]
    private let interrupts: [Phase: Counter]

    init() {
        ended = Dictionary(
            uniqueKeysWithValues: ["finished", "interrupted", "failed"].map {
                ($0, Counter(label: "sluice_jobs_ended_total", dimensions: [("outcome", $0)]))
            })
        interrupts = Dictionary(
            uniqueKeysWithValues: Phase.allCases.map {
                ($0, Counter(label: "sluice_interrupts_total", dimensions: [("phase", $0.rawValue)]))
            })
    }

    func finished(_ event: GenerationEvent) {
        ended[event.type]?.increment()
        if case .interrupted(let interruption) = event { interrupts[interruption.phase]?.increment() }
    }
}
