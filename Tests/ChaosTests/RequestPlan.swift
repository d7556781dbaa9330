import TestSupport

/// The model of a request and its planned interrupt.
struct RequestPlan: Sendable {
    enum Interrupt: Sendable {
        case never
        case after(milliseconds: Int)
        case tokens(Int)
    }

    let script: String
    let interrupt: Interrupt
    /// The number of tokens after which the client closes its socket and reconnects.
    let leavesAfter: Int?

    init(_ random: inout SplitMix64) {
        // The lease of a slow job is renewed several times between two tokens.
        let isSlow = Int.random(in: 0..<15, using: &random) == 0
        let count = Int.random(in: isSlow ? 3...5 : 5...120, using: &random)
        let gap = Int.random(in: isSlow ? 1_200...2_500 : 2...30, using: &random)
        var script = "sim-n\(count)-g\(gap)"
        switch Int.random(in: 0..<20, using: &random) {
        case 0: script += "-e500"
        case 1: script += "-e429"
        case 2: script += "-k\(count / 2)"
        case 3, 4: script += "-f\(Int.random(in: 50...1_500, using: &random))"
        case 5: script += "-b8"
        case 6: script += "-r"
        default: break
        }
        self.script = script
        switch Int.random(in: 0..<10, using: &random) {
        case 0: interrupt = .after(milliseconds: 0)
        case 1, 2: interrupt = .after(milliseconds: .random(in: 1...1_500, using: &random))
        case 3: interrupt = .tokens(.random(in: 1...count, using: &random))
        default: interrupt = .never
        }
        leavesAfter = Int.random(in: 0..<20, using: &random) == 0 ? count / 3 : nil
    }
}

/// The result of a request, as seen by its client.
struct RequestStory: Sendable {
    let model: String
    var checker: RequestChecker?
    /// Whether the request was rejected.
    var isRefused = false
    /// Whether the session no longer had the request, which had begun, on another socket.
    var isForgotten = false
    /// Whether the socket closed during sending, so that the request may have arrived or not.
    var isInDoubt = false
    var askedForInterrupt = false
    /// The time of the acknowledgement of an INTERRUPT with SUCCESS; CLOCK_MONOTONIC in nanoseconds.
    var acknowledgedAt: Int?
    var reconnects = 0
    var problems: [String] = []
    /// The job's id, for submissions with plain Redis commands.
    var job: String?
}
