import CurlTransport
import JobQueue
import Logging

/// Reservations under limits that hold over all workers: asking Redis for them, renewing them and giving them back.
extension GenerationPool {
    /// Holders per renewal, so that a call does not block Redis for long.
    private static let renewedAtOnce = 200
    /// Attempts to give a reservation back, 200 ms apart. Then its lease expires.
    private static let releaseAttempts = 10

    /// Asks for a place under a limit.
    func reserve(_ reservation: LimitReservation) {
        let holder = reservation.holder
        reservations[holder] = reservation
        Task { await acquire(holder) }
    }

    /// Reads the state of a reservation that does not have its place yet. Callable from any thread.
    nonisolated func limitChanged(_ holder: String) {
        onLoop { pool in
            guard pool.reservations[holder] != nil else { return }
            Task { await pool.acquire(holder) }
        }
    }

    private func acquire(_ holder: String) async {
        while let reservation = reservations[holder], reservation.state != .admitted {
            do {
                let state = try await consumer.acquire(reservation.limit, holder: holder, tokens: reservation.tokens)
                apply(state, to: [reservation])
                return
            } catch {
                context.logger.debug("a limit could not be read", metadata: ["error": "\(error)"])
                await pause(.milliseconds(200))
            }
        }
    }

    /// Renews the leases of all reservations. Does nothing while an earlier renewal is under way.
    func renewLimits() async {
        guard !isRenewingLimits else { return }
        isRenewingLimits = true
        defer { isRenewingLimits = false }
        for (limit, holders) in Dictionary(grouping: reservations.values, by: \.limit) { await renew(limit, holders) }
    }

    private func renew(_ limit: SharedLimit, _ holders: [LimitReservation]) async {
        for start in stride(from: 0, to: holders.count, by: Self.renewedAtOnce) {
            // Some may have been given back since the renewal began.
            let some = holders[start..<min(start + Self.renewedAtOnce, holders.count)].filter { $0.state != .released }
            guard !some.isEmpty else { continue }
            do {
                let state = try await consumer.renew(
                    limit, holders: some.map { LimitHolder(id: $0.holder, isAdmitted: $0.state == .admitted, tokens: $0.tokens) })
                apply(state, to: some)
                for reservation in some where reservation.state == .released {
                    // It was given back while the renewal was under way, which has taken a place again.
                    await release(reservation.limit, reservation.holder, used: nil)
                }
            } catch {
                context.logger.debug("renewal of limits failed", metadata: ["error": "\(error)"])
            }
        }
    }

    /// Applies an answer of Redis.
    private func apply(_ state: JobConsumer.LimitState, to some: [LimitReservation]) {
        for (reservation, isAdmitted) in zip(some, state.areAdmitted) where reservations[reservation.holder] === reservation {
            switch (reservation.state, isAdmitted) {
            case (.asking, false): reservation.state = .waiting
            case (.asking, true), (.waiting, true): reservation.state = .admitted
            default: continue
            }
            reservation.changed(reservation)
        }
        if let wait = state.wait, let limit = some.first?.limit { look(at: limit, after: wait) }
    }

    /// Looks at a limit again when the next holder can be admitted, if this worker has waiting ones. The renewals do so after long waits.
    private func look(at limit: SharedLimit, after wait: Duration) {
        guard wait < consumer.settings.renewalInterval, !limitsLookedAt.contains(limit),
            reservations.values.contains(where: { $0.limit == limit && $0.state == .waiting })
        else { return }
        limitsLookedAt.insert(limit)
        _ = loop.schedule(after: max(.milliseconds(5), wait)) {
            Task { await self.lookAgain(at: limit) }
        }
    }

    private func lookAgain(at limit: SharedLimit) async {
        limitsLookedAt.remove(limit)
        await renew(limit, reservations.values.filter { $0.limit == limit })
    }

    /// Gives a reservation back.
    func release(_ reservation: LimitReservation, used: Int) {
        guard reservation.state != .released else { return }
        // Nothing was used before it was admitted.
        reservation.state = .released
        reservations[reservation.holder] = nil
        let (limit, holder) = (reservation.limit, reservation.holder)
        Task { await release(limit, holder, used: used) }
    }

    private func release(_ limit: SharedLimit, _ holder: String, used: Int?) async {
        for _ in 0..<Self.releaseAttempts {
            // The same attempt may have asked again.
            guard reservations[holder] == nil else { return }
            do {
                let state = try await consumer.release(limit, holder: holder, used: used)
                if let wait = state.wait { look(at: limit, after: wait) }
                return
            } catch {
                await pause(.milliseconds(200))
            }
        }
    }
}
