import Contract
import JobQueue
import Support
import Upstream

/// The limits over all workers that a job needs a place under before each request: first its tenant's, which it keeps to its end, then the
/// upstream's, which it keeps until the request has ended. All jobs take them in this order, so that none waits for another in a circle.
extension Generation {
    /// Whether a request may be sent now.
    enum Permission { case admitted, asking, waiting }

    /// Time after which a waiting job tries again although it was not admitted. A safety net: each attempt reads the interrupt key.
    static let limitWait = Duration.seconds(30)
    /// Estimated completion tokens of a job that does not limit them.
    static let defaultCompletion = 500

    /// The limits of a request.
    private func limits(for candidate: UpstreamRoute.Candidate) -> [SharedLimit] {
        let upstream = candidate.upstream
        let limits = [
            claim.tenant?.limit(of: claim.job.owner ?? ""),
            SharedLimit(
                .upstream, upstream.name, concurrency: upstream.concurrency, requestsPerMinute: upstream.requestsPerMinute,
                tokensPerMinute: upstream.tokensPerMinute),
        ]
        return limits.compactMap { $0 }.filter(\.isEffective)
    }

    /// Reserves what the request needs, one limit after the other.
    func permission(for candidate: UpstreamRoute.Candidate) -> Permission {
        for limit in limits(for: candidate) {
            guard let reservation = reservations.first(where: { $0.limit.isSame(as: limit) }) else {
                let tokens = TokenEstimate.prompt(claim.job.request).saturatingAdding(claim.job.maximumTokens ?? Self.defaultCompletion)
                let reservation = LimitReservation(
                    limit, holder: "\(id) \(claim.attempt) \(limit.kind.rawValue) \(limit.name)", tokens: tokens
                ) { [weak self] in self?.limitChanged($0) }
                if limit.kind == .upstream { usageAtDial = totalTokens }
                reservations.append(reservation)
                request(.reserve(reservation))
                return .asking
            }
            switch reservation.state {
            case .admitted: continue
            case .asking: return .asking
            case .waiting, .released: return .waiting
            }
        }
        return .admitted
    }

    /// Continues after an answer of Redis.
    private func limitChanged(_ reservation: LimitReservation) {
        guard stage == .running else { return }
        if let asked {
            self.asked = nil
            dial(asked)
        } else if reservation.state == .admitted {
            limitMayAllow()
        }
    }

    /// Leaves the lines of the upstreams other than the one that is called now, and takes a slot again.
    func limitsAllow(_ candidate: UpstreamRoute.Candidate) {
        releaseReservations { $0.limit.kind == .upstream && $0.limit.name != candidate.upstream.name }
        usageAtDial = totalTokens
        occupySlot()
    }

    /// Leaves the slot to others while the job waits for a limit.
    func leaveSlot() {
        guard !waitsForLimit else { return }
        waitsForLimit = true
        slot(.waitsForLimit)
    }

    private func occupySlot() {
        guard waitsForLimit else { return }
        waitsForLimit = false
        slot(.occupied)
    }

    private var totalTokens: Int { usage.promptTokens.saturatingAdding(usage.completionTokens) }

    /// Gives back the places under the limits of upstreams, and the tokens that the request did not use.
    func releaseUpstreamLimits() {
        asked = nil
        releaseReservations { $0.limit.kind == .upstream }
        occupySlot()
    }

    /// Gives back the place under the limits of one upstream.
    func releaseUpstreamLimit(of candidate: UpstreamRoute.Candidate) {
        releaseReservations { $0.limit.kind == .upstream && $0.limit.name == candidate.upstream.name }
    }

    /// Gives back all places: the job ends or leaves this worker.
    func releaseAllLimits() {
        releaseUpstreamLimits()
        releaseReservations { _ in true }
    }

    private func releaseReservations(where condition: (LimitReservation) -> Bool) {
        for reservation in reservations where condition(reservation) {
            let begun = reservation.limit.kind == .tenant ? earlierTokens : usageAtDial
            request(.release(reservation, used: max(0, totalTokens - begun)))
        }
        reservations.removeAll(where: condition)
    }

    /// Tokens of earlier attempts.
    private var earlierTokens: Int {
        (claim.earlierUsage?.promptTokens ?? 0).saturatingAdding(claim.earlierUsage?.completionTokens ?? 0)
    }
}
