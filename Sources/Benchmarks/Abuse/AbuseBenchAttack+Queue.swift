import Contract
import NIOCore
import RedisClient

/// Attacks on Redis and the worker: jobs that wait in a paused class, and jobs that occupy all slots.
extension AbuseAttack {
    static let queueFlood = AbuseAttack(
        name: "queue-flood", summary: "as many jobs of 0.95 MB as are accepted while their class is paused", pausedClass: .standard
    ) { target in
        let text = String(repeating: "q", count: largestSettings(target))
        let post = AbuseMessage.post(
            "/v1/jobs", #"{"request":{"model":"sim-n1-g0","messages":[{"role":"user","content":"\#(text)"}]}}"#, host: target.gateway,
            key: AbuseTarget.key)
        return {
            try await target.inParallel(target.size(8, quick: 2)) { _ in
                for _ in 0..<75 where !Task.isCancelled {
                    guard let connection = await target.connect() else { return }
                    let answer = await connection.exchange(post, for: ["HTTP/1.1 202", "HTTP/1.1 "])
                    target.count(accepted: answer == 0)
                    connection.close()
                }
            }
        }
    }

    static let promptFlood = AbuseAttack(
        name: "prompt-flood", summary: "REQUESTs of 200 bytes in sessions with a prompt of 0.95 MB, while their class is paused",
        // Without the request probe, since the victim's requests would wait in the paused class.
        probes: [.models, .health], pausedClass: .interactive
    ) { target in
        let register = largeRegister(target)
        // A session may have 64 running requests.
        let requests = frames(60) { AbuseMessage.request("r\($0)") }
        return {
            try await target.inParallel(target.size(8, quick: 4)) { _ in
                guard let socket = await target.registered(register) else { return }
                for request in requests where await socket.send(request) { target.count() }
            }
        }
    }

    static let slotFlood = AbuseAttack(
        name: "slot-flood", summary: "more slow streams than the worker has slots, with a limit of running jobs for each tenant",
        tenants: "tenants:\n  - name: default\n    concurrency: 128\n"
    ) { target in
        // A session may have 64 running requests; a worker has 256 slots.
        let requests = frames(60) { AbuseMessage.request("r\($0)", model: "sim-n100000-g1000") }
        return {
            try await target.inParallel(5) { _ in
                guard let socket = await target.registered() else { return }
                for request in requests where await socket.send(request) { target.count() }
            }
        }
    }
}
