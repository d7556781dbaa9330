import NIOCore
import Upstream

/// One way in which a tenant or an address can try to exhaust a node.
struct AbuseAttack: Sendable {
    /// Sends what was prepared; returns early, or runs until its task is cancelled.
    typealias Run = @Sendable () async throws -> Void

    let name: String
    let summary: String
    /// The victim's probes during the attack.
    var probes: [AbuseVictim.Probe] = [.request, .models, .health]
    /// Whether the worker's memory is bounded by the promise too: the attack passes through the gateway.
    var aimsAtWorker = false
    /// Multiplies the time of an attack whose effect takes longer to show.
    var timeFactor = 1.0
    /// The gateway's limit of open files; nil: as inherited. A small one shows with few connections whether they are shared out.
    var descriptors: Int?
    /// What the worker speaks to the simulator.
    var upstream = UpstreamConfiguration.Kind.openai
    /// Builds the attack's bytes and its state in Redis, before anything is measured.
    let prepare: @Sendable (AbuseTarget) async throws -> Run

    static let all: [AbuseAttack] = [
        settingsFlood, listedParameters, continuationFlood, abandonedSessions, logInFlood, connectionFlood, unreadReplays, unreadWebSocket,
        largeBodies, doubledNames, queueFlood, promptFlood, interruptFlood, sessionQueryFlood, slotFlood,
    ]

    static func named(_ name: String) -> AbuseAttack? { all.first { $0.name == name } }

    /// Bytes of settings: what still fits into a message of 1 MiB. A debug build takes too long for that much.
    static func largestSettings(_ target: AbuseTarget) -> Int { target.size(950_000, quick: 240_000) }

    /// REGISTER with a large system prompt.
    static func largeRegister(_ target: AbuseTarget) -> ByteBuffer {
        let prompt = String(repeating: "x", count: largestSettings(target))
        return AbuseMessage.register(key: AbuseTarget.key, fields: #","system_prompt":{"role_description":"\#(prompt)"}"#)
    }

    /// Frames in buffers of about 16 KB, so that each is one write.
    static func frames(_ count: Int, _ text: (Int) -> String) -> [ByteBuffer] {
        var buffers: [ByteBuffer] = []
        var buffer = ByteBuffer()
        for number in 0..<count {
            AbuseMessage.append(text(number).utf8, to: &buffer)
            if buffer.readableBytes > 16_384 || number == count - 1 {
                buffers.append(buffer)
                buffer = ByteBuffer()
            }
        }
        return buffers
    }
}
