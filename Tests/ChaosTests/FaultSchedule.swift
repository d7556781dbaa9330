import TestSupport

/// The faults of a deployment, determined by a seed.
struct FaultSchedule: Sendable {
    /// A place in the deployment: a node or a link.
    enum Place: Sendable, Hashable {
        case worker(Int)
        case gateway(Int)
    }

    enum Link: Sendable, Hashable {
        case workerToRedis(Int)
        case gatewayToRedis(Int)
        case workerToUpstream(Int)
        case clientToGateway(Int)
    }

    enum Trouble: Sendable, Hashable {
        case cut
        case reset
        /// No data passes, and connections stay open.
        case silence(milliseconds: Int)
        case latency(milliseconds: Int, for: Int)
        case slices(milliseconds: Int)
        case refusal(milliseconds: Int)
    }

    enum Fault: Sendable, Hashable {
        /// SIGKILL and a later restart.
        case kill(Place, downFor: Int)
        /// SIGSTOP, then SIGCONT.
        case freeze(Place, milliseconds: Int)
        case trouble(Link, Trouble)
        /// SIGKILL of Redis and a restart with its append-only file.
        case restartRedis(downFor: Int)
    }

    struct Entry: Sendable, Hashable {
        /// Milliseconds since the start.
        let at: Int
        let fault: Fault
    }

    let entries: [Entry]

    /// - Parameter lease: in milliseconds.
    init(seed: UInt64, seconds: Int, workers: Int, gateways: Int, lease: Int) {
        var random = SplitMix64(seed: seed)
        var entries: [Entry] = []
        var at = 1_000
        var redisAt = 6_000
        while at < seconds * 1_000 {
            let draw = Int.random(in: 0..<100, using: &random)
            let fault: Fault
            switch draw {
            case 0..<22: fault = .kill(.worker(.random(in: 0..<workers, using: &random)), downFor: .random(in: 0...1_500, using: &random))
            case 22..<34:
                fault = .kill(.gateway(.random(in: 0..<gateways, using: &random)), downFor: .random(in: 0...1_500, using: &random))
            case 34..<44:
                let time = Int.random(in: lease + 200...lease + 2_500, using: &random)
                fault = .freeze(.worker(.random(in: 0..<workers, using: &random)), milliseconds: time)
            case 44..<49:
                let time = Int.random(in: 300...lease + 1_000, using: &random)
                fault = .freeze(.gateway(.random(in: 0..<gateways, using: &random)), milliseconds: time)
            case 49..<57 where at >= redisAt:
                fault = .restartRedis(downFor: .random(in: 0...1_200, using: &random))
                redisAt = at + 12_000
            default: fault = Self.trouble(&random, workers: workers, gateways: gateways, lease: lease)
            }
            entries.append(Entry(at: at, fault: fault))
            at += Int.random(in: 200...1_400, using: &random)
        }
        self.entries = entries
    }

    private static func trouble(_ random: inout SplitMix64, workers: Int, gateways: Int, lease: Int) -> Fault {
        let link: Link
        switch Int.random(in: 0..<10, using: &random) {
        case 0..<4: link = .workerToRedis(.random(in: 0..<workers, using: &random))
        case 4..<6: link = .gatewayToRedis(.random(in: 0..<gateways, using: &random))
        case 6..<8: link = .workerToUpstream(.random(in: 0..<workers, using: &random))
        default: link = .clientToGateway(.random(in: 0..<gateways, using: &random))
        }
        let trouble: Trouble
        switch Int.random(in: 0..<10, using: &random) {
        case 0..<3: trouble = .cut
        case 3..<5: trouble = .reset
        case 5..<7: trouble = .silence(milliseconds: .random(in: 300...2 * lease, using: &random))
        case 7: trouble = .latency(milliseconds: .random(in: 5...150, using: &random), for: .random(in: 500...2_500, using: &random))
        case 8: trouble = .slices(milliseconds: .random(in: 500...2_500, using: &random))
        default: trouble = .refusal(milliseconds: .random(in: 200...2_000, using: &random))
        }
        return .trouble(link, trouble)
    }
}
