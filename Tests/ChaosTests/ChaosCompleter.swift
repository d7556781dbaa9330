import Contract
import JSONCodec
import NIOCore
import NIOHTTP1
import TestSupport

/// Asks for chat completions over plain HTTP, one after the other, by way of whichever gateway. What is told as whole must be; that the
/// jobs behind broken connections end is judged by their logs.
actor ChaosCompleter {
    /// Then it closes its connection, whether it has an answer or not.
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
            // Its gateway may have been taken for dead, and its completions been interrupted.
            guard choice["finish_reason"] == "stop" else { return }
            whole += 1
            if choice["message"]?["content"]?.string != SimulatorText.tokens(count) {
                problems.append("\(model) was told as whole: \(answer.body.prefix(500))")
            }
        } catch {
            // The connection broke, or was closed from here: nothing is owed but an end.
        }
    }
}
