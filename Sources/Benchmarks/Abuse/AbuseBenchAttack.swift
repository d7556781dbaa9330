import Contract
import NIOCore
import Upstream

/// An attack by which a tenant or an address can try to exhaust a node.
package struct AbuseAttack: Sendable {
    /// Runs a prepared attack. Returns when everything is sent, or runs until its task is cancelled.
    typealias Run = @Sendable () async throws -> Void

    package let name: String
    package let summary: String
    /// The requests of the victim that are measured.
    var probes: [AbuseVictim.Probe] = [.request, .models, .health]
    /// Whether the limit of memory growth applies to the worker too, because the attack passes through the gateway.
    var aimsAtWorker = false
    /// Factor for the duration of an attack that takes longer to have an effect.
    var timeFactor = 1.0
    /// The gateway's limit of open files; nil: inherited. With a small limit, few connections suffice to test the limits per address.
    var descriptors: Int?
    /// The class that is paused before the worker starts. A running worker would apply a pause only at its next renewal, and the first jobs
    /// of the attack would run.
    var pausedClass: JobClass?
    /// The text of `SLUICE_TENANTS_FILE`; nil: not set.
    var tenants: String?
    /// The dialect between worker and simulator.
    var upstream = UpstreamConfiguration.Kind.openai
    /// Builds the attack's messages and its state in Redis before the measurement.
    let prepare: @Sendable (AbuseTarget) async throws -> Run

    package static let all: [AbuseAttack] = [
        settingsFlood, listedParameters, continuationFlood, abandonedSessions, logInFlood, connectionFlood, unreadReplays, unreadWebSocket,
        largeBodies, doubledNames, queueFlood, promptFlood, interruptFlood, sessionQueryFlood, slotFlood,
    ]

    /// The attack of this name; nil when there is none.
    package static func named(_ name: String) -> AbuseAttack? { all.first { $0.name == name } }

    /// Bytes of settings that fit into a message of 1 MiB; fewer for debug builds, which are too slow for that size.
    static func largestSettings(_ target: AbuseTarget) -> Int { target.size(950_000, quick: 240_000) }

    /// A REGISTER message with a large system prompt.
    static func largeRegister(_ target: AbuseTarget) -> ByteBuffer {
        let prompt = String(repeating: "x", count: largestSettings(target))
        return AbuseMessage.register(key: AbuseTarget.key, fields: #","system_prompt":{"role_description":"\#(prompt)"}"#)
    }

    /// Frames in buffers of about 16 KB, each sent by one write.
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
