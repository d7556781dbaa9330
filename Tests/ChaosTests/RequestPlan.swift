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
        // The lease of a slow job is renewed between two tokens. It takes up to 6 s, as one that takes longer than the time between two faults
        // may begin anew at each of them.
        let isSlow = Int.random(in: 0..<15, using: &random) == 0
        let count = Int.random(in: isSlow ? 2...3 : 5...120, using: &random)
        let gap = Int.random(in: isSlow ? 1_200...2_000 : 2...30, using: &random)
        script = "sim-n\(count)-g\(gap)" + (isSlow ? "" : Self.trouble(count, &random))
        switch Int.random(in: 0..<10, using: &random) {
        case 0: interrupt = .after(milliseconds: 0)
        case 1, 2: interrupt = .after(milliseconds: .random(in: 1...1_500, using: &random))
        case 3: interrupt = .tokens(.random(in: 1...count, using: &random))
        default: interrupt = .never
        }
        leavesAfter = Int.random(in: 0..<20, using: &random) == 0 ? count / 3 : nil
    }

    /// What the upstream does besides, as a part of the model's name; usually nothing.
    private static func trouble(_ count: Int, _ random: inout SplitMix64) -> String {
        switch Int.random(in: 0..<20, using: &random) {
        case 0: "-e500"
        case 1: "-e429"
        case 2: "-k\(count / 2)"
        case 3, 4: "-f\(Int.random(in: 50...1_500, using: &random))"
        case 5: "-b8"
        case 6: "-r"
        default: ""
        }
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
