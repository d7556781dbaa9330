import Contract
import JSONCodec
import NIOCore
import NIOHTTP1
import TestSupport

/// Sends chat completions over HTTP to any gateway, one after the other. Answers that end normally must be complete; jobs of broken
/// connections are checked by their logs.
actor ChaosCompleter {
    /// The time after which it closes its connection, in milliseconds.
    private static let patience = [500, 3_000, 15_000]

    private let deployment: Deployment
    private var random: SplitMix64
    private(set) var problems: [String] = []
    private(set) var whole = 0

    init(_ deployment: Deployment, seed: UInt64) {
        self.deployment = deployment
        random = SplitMix64(seed: seed)
    }

    func live(until end: ContinuousClock.Instant) async {
        while ContinuousClock.now < end, !Task.isCancelled {
            await complete()
            try? await Task.sleep(for: .milliseconds(Int.random(in: 50...300, using: &random)))
        }
    }

    private func complete() async {
        let count = Int.random(in: 5...60, using: &random)
        let model = deployment.lab.model("sim-n\(count)-g\(Int.random(in: 2...20, using: &random))")
        let gateway = deployment.gateways[Int.random(in: 0..<deployment.gateways.count, using: &random)]
        let patience = Self.patience.randomElement(using: &random) ?? 0
        let body: JSON = ["model": .string(model), "messages": [["role": "user", "content": "hello"]]]
        do {
            let answer = try await HTTPCall.send(
                .POST, gateway.other.port, "/v1/chat/completions",
                headers: ["authorization": "Bearer \(deployment.lab.key)", "content-type": "application/json"], body: body.text,
                deadline: .milliseconds(Int64(patience)))
            guard answer.status == 200, let choice = answer.json?["choices"]?[0] else { return }
            // Its gateway may have been considered crashed and its completions interrupted.
            guard choice["finish_reason"] == "stop" else { return }
            whole += 1
            if choice["message"]?["content"]?.string != SimulatorText.tokens(count) {
                problems.append("\(model) ended normally but is incomplete: \(answer.body.prefix(500))")
            }
        } catch {
            // The connection was closed, so only the end of the job is expected.
        }
    }
}
