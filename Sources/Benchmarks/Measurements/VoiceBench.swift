import Contract
import JSONCodec
import NIOCore
import OperatorTools
import Support

/// `sluice bench voice`: how soon an answer is heard, and how fast an interrupt silences it, with the speech running.
package struct VoiceBench: Sendable {
    private let deployment: BenchDeployment
    private let count: Int
    /// Number of concurrent answers.
    private let batch: Int

    package init(deployment: BenchDeployment, count: Int, batch: Int) {
        self.deployment = deployment
        self.count = count
        self.batch = batch
    }

    /// Without punctuation, about sixty characters are spoken together: 18 tokens.
    private static let model = SimulatedModel(tokens: 10_000, gap: 20)
    /// Voice frames that an answer must have before it is interrupted.
    private static let frames = 5
    private static let speechPath = "/v1/audio/speech"

    private struct Sums {
        var firstVoice = Times()
        var clause = Times()
        var synthesis = Times()
        var relay = Times()
        var acknowledged = Times()
        var closed = Times()
        var lastFrame = Times()
        var missed = 0
        var voiceAfter = 0
    }

    /// Measures and returns the report.
    /// - Throws: `CommandFailure` when a node does not answer, an answer has no voice or does not end in time.
    package func run() async throws -> BenchReport {
        Progress.say("warming up")
        var sums = Sums()
        try await trial(size: batch, into: &sums)
        sums = Sums()
        for start in stride(from: 0, to: count, by: batch) {
            if start / 50 != (start - batch) / 50 { Progress.say("\(start) of \(count) answers") }
            try await trial(size: min(batch, count - start), into: &sums)
        }
        var report = BenchReport("voice")
        report.set("answers", .integer(count))
        report.set("together", .integer(batch))
        report.set("gap_ms", .number(BenchReport.rounded(Self.model.gap)))
        report.add("voice_frames_after", "frames of voice after the acknowledgement", Double(sums.voiceAfter), "")
        report.add("missed", "INTERRUPT: answers with an upstream connection that was not closed", Double(sums.missed), "")
        report.add("first_voice", "first text → first voice frame", sums.firstVoice)
        report.add("clause", "first text → first speech request", sums.clause)
        report.add("synthesis", "first speech request → its first samples", sums.synthesis)
        report.add("voice_relay", "first samples → first voice frame", sums.relay)
        report.add("acknowledged", "INTERRUPT → acknowledged", sums.acknowledged)
        report.add("closed", "INTERRUPT → last upstream connection closed", sums.closed)
        report.add("last_frame", "INTERRUPT → last frame", sums.lastFrame)
        return report
    }

    /// Lets answers speak together and interrupts them one after the other.
    private func trial(size: Int, into sums: inout Sums) async throws {
        let eventLoop = deployment.redis.eventLoop
        let reader = StreamReader(
            jobs: (0..<size).map { "unknown-\($0)" }, gap: Self.model.gapNanoseconds, recordsVoice: true, eventLoop: eventLoop)
        let began = MonotonicClock.nanoseconds
        let socket = try await BenchSocket.connect(to: deployment.gateway, key: deployment.key, eventLoop: eventLoop, reader: reader)
        for index in 0..<size { socket.ask(index, model: Self.model, speaks: true) }
        try await reader.wait(for: "were spoken (the workers need a speech upstream)", seconds: 30) { $0.voiceFrames >= Self.frames }
        var sent: [UInt64] = []
        for index in 0..<size {
            // A random delay, so that interrupts are not synchronized with tokens.
            try await Task.sleep(for: .microseconds(Int64.random(in: 2_000...12_000)))
            sent.append(
                try await eventLoop.submit {
                    let now = MonotonicClock.nanoseconds
                    socket.interrupt(index)
                    return now
                }.get())
        }
        try await reader.wait(for: "ended", seconds: 30) { $0.ended != nil }
        try await reader.wait(for: "were acknowledged", seconds: 10) { $0.acknowledged != nil }
        await socket.close()
        try await compare(await reader.streams, sent: sent, since: began, into: &sums)
    }

    /// Compares the answers with the simulator's list of requests.
    private func compare(_ streams: [StreamReader.Stream], sent: [UInt64], since: UInt64, into sums: inout Sums) async throws {
        let requests = Dictionary(grouping: try await deployment.simulator.requests(since: since), by: \.tag)
        for (stream, sent) in zip(streams, sent) {
            let own = (requests[stream.job] ?? []).sorted { $0.accepted < $1.accepted }
            if let first = stream.firstToken, let voice = stream.firstVoice, voice >= first {
                sums.firstVoice.add(voice - first)
                if let speech = own.first(where: { $0.path == Self.speechPath }), let samples = speech.firstToken {
                    if speech.accepted >= first { sums.clause.add(speech.accepted - first) }
                    sums.synthesis.add(samples - speech.accepted)
                    if voice >= samples { sums.relay.add(voice - samples) }
                }
            }
            if let acknowledged = stream.acknowledged, acknowledged >= sent { sums.acknowledged.add(acknowledged - sent) }
            if let ended = stream.ended, ended >= sent { sums.lastFrame.add(ended - sent) }
            sums.voiceAfter += stream.voiceAfterAcknowledgement
            let closings = own.map { $0.clientLeft ?? $0.ended }
            guard !closings.isEmpty, closings.allSatisfy({ $0 != nil }), let last = closings.compactMap(\.self).max(), last >= sent else {
                sums.missed += 1
                continue
            }
            sums.closed.add(last - sent)
        }
    }
}
