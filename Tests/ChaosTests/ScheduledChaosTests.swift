import Foundation
import TestSupport
import Testing

extension Chaos {
    /// Processes crash and freeze and links fail by a seeded schedule while clients continue. Afterwards the guarantees are checked.
    @Suite struct ScheduledChaosTests {
        @Test func `no fault loses, duplicates or leaves running anything`() async throws {
            let (seed, seconds) = (ChaosSettings.seed, ChaosSettings.seconds)
            print(
                "chaos: seed \(seed), \(seconds) s, \(ChaosSettings.users) users (SLUICE_CHAOS_SEED, SLUICE_CHAOS_SECONDS, SLUICE_CHAOS_USERS)"
            )
            try await withLab(redis: PrivateRedis.Options(appendOnly: true)) { lab in
                let deployment = try await Deployment.start(lab, workers: 3, gateways: 2, seed: seed)
                let schedule = FaultSchedule(seed: seed, seconds: seconds, workers: 3, gateways: 2, lease: Deployment.lease)
                let runner = FaultRunner(deployment)
                let end = ContinuousClock.now + .seconds(seconds)
                let users = (0..<ChaosSettings.users).map { ChaosUser(deployment, name: $0, seed: seed &* 1_000 &+ UInt64($0)) }
                let front = ChaosFrontEnd(deployment, seed: seed &* 1_000 &+ 999)
                let completer = ChaosCompleter(deployment, seed: seed &* 1_000 &+ 998)
                try await withThrowingTaskGroup(of: Void.self) { tasks in
                    for user in users { tasks.addTask { await user.live(until: end) } }
                    tasks.addTask { await front.live(until: end) }
                    tasks.addTask { await completer.live(until: end) }
                    tasks.addTask { try await runner.run(schedule) }
                    try await tasks.waitForAll()
                }
                var checker = ChaosChecker()
                try await checker.waitForRest(lab, deadline: .seconds(150))
                var stories = await front.stories
                var problems = await completer.problems
                for user in users {
                    stories += await user.stories
                    problems += await user.problems
                }
                try await checker.check(lab, stories)
                let whole = await completer.whole
                if whole == 0, seconds >= 30 { problems.append("no chat completion ever came back whole") }
                problems += checker.problems
                report(checker.figures, stories, await runner.counts, problems)
                for problem in problems.prefix(20) { Issue.record("seed \(seed): \(problem)") }
                try ChaosSettings.keepLogs(of: lab)
            }
        }

        private func report(_ figures: ChaosChecker.Figures, _ stories: [RequestStory], _ faults: FaultRunner.Counts, _ problems: [String])
        {
            print(
                """
                chaos: \(figures.jobs) jobs (\(figures.finished) finished, \(figures.interrupted) interrupted, \(figures.failed) failed by their upstream, \
                \(figures.refused) refused), \(stories.count { $0.askedForInterrupt }) interrupts, \(faults.kills) kills, \(faults.freezes) freezes, \
                \(faults.cuts) cuts, \(faults.slowed) slow links, \(faults.restarts) Redis restarts, \(figures.attempts) attempts, \
                \(figures.reconnects) reconnects, longest request \(figures.longestRequest / 1_000_000) ms; \(figures.losses) losses, \
                \(figures.duplicates) duplicates, \(figures.leftRunning) left running upstream, terminal events per job \
                \(figures.fewestTerminals)…\(figures.mostTerminals), \(problems.count) problems
                """)
        }
    }
}
