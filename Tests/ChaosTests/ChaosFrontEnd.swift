import Contract
import JSONCodec
import TestSupport

/// Submits and interrupts jobs with plain Redis commands during all faults. Accepted jobs are checked by their logs afterwards.
actor ChaosFrontEnd {
    private let deployment: Deployment
    private var random: SplitMix64
    private(set) var stories: [RequestStory] = []

    init(_ deployment: Deployment, seed: UInt64) {
        self.deployment = deployment
        random = SplitMix64(seed: seed)
    }

    func live(until end: ContinuousClock.Instant) async {
        while ContinuousClock.now < end, !Task.isCancelled {
            await submit()
            try? await Task.sleep(for: .milliseconds(Int.random(in: 50...400, using: &random)))
        }
    }

    private func submit() async {
        let plan = RequestPlan(&random)
        let model = deployment.lab.model(plan.script)
        let id = FrontEnd.newID()
        let policy = ["continue", "restart", "continue"].randomElement(using: &random) ?? "continue"
        let job = FrontEnd.job(id: id, model: model, fields: [("on_crash", .string(policy))])
        let queue = ["interactive", "standard", "batch"].randomElement(using: &random) ?? "standard"
        var story = RequestStory(model: model)
        do {
            guard case .bulk = try await deployment.lab.redis.command("XADD", "{sluice.0}:queue:\(queue)", "*", "job", job) else { return }
        } catch {
            // Redis is unreachable and may have the job or not, so nothing is expected.
            return
        }
        story.job = id
        if case .after(let milliseconds) = plan.interrupt {
            try? await Task.sleep(for: .milliseconds(milliseconds))
            story.askedForInterrupt = true
            do {
                let intent = #"{"id":"\#(id)","reason":"USER_STOP"}"#
                try await deployment.lab.redis.command("SET", "{sluice.0}:interrupt:\(id)", intent, "EX", "86400")
                try await deployment.lab.redis.command("PUBLISH", "{sluice.0}:cancel", intent)
                story.acknowledgedAt = monotonicNanoseconds()
            } catch {
                // It may have been written or not, so both ends are correct.
            }
        }
        stories.append(story)
    }
}
