import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension Journeys {
    /// Speech output during and after the text, and its interrupt.
    @Suite struct SpeechTests {
        private static func settings(_ lab: Lab, kind: String = "openai", model: String) -> [String: String?] {
            [
                "SLUICE_SPEECH_KIND": kind,
                "SLUICE_SPEECH_URL": "http://127.0.0.1:\(lab.simulator.port)\(kind == "openai" ? "/v1" : "/api/v1")",
                "SLUICE_SPEECH_KEY": lab.upstreamKey, "SLUICE_SPEECH_MODEL": model,
            ]
        }

        private static let speech: [(String, JSON)] = [("speech", .object(JSONObject()))]

        /// The bytes of samples in each audio event, which are checked.
        private static func audio(_ checker: EventChecker) -> [Int] {
            var sizes: [Int] = []
            let events = checker.events.filter { $0["type"] == "audio" }
            for (index, event) in events.enumerated() {
                #expect(event["index"]?.integer == index && event["format"] == "pcm", "\(index): \(event.text.prefix(80))")
                #expect(event["last"]?.bool == (index == events.count - 1), "\(index)")
                let data = event["data"]?.string.flatMap { Data(base64Encoded: $0) }
                #expect(data != nil && (data?.count ?? 1) % 2 == 0, "\(index)")
                sizes.append(data?.count ?? 0)
            }
            return sizes
        }

        @Test(arguments: ["openai", "dashscope"])
        func `text and audio of thirty sentences are interleaved and in order`(kind: String) async throws {
            try await withLab { lab in
                // At most two requests at once per job, and at most the limit of the worker.
                let together = kind == "dashscope" ? 1 : 2
                let settings = Self.settings(lab, kind: kind, model: "sim-n4-g5-speech")
                    .merging(["SLUICE_SPEECH_CONCURRENCY": together == 1 ? "1" : "256"]) { $1 }
                let worker = try await lab.worker("w1", settings)
                let front = try await FrontEnd(lab.redis)
                // Without punctuation, about sixty characters are a sentence.
                let job = try await front.submit(model: lab.model("sim-n420-g10"), fields: Self.speech)
                let end = try await job.ended()
                #expect(end["type"] == "finished" && end["usage"]?["completion_tokens"] == 420, "\(end.text)")
                let received = job.received
                #expect(received.problems.isEmpty && received.text == SimulatorText.tokens(420))
                #expect(try await job.log().events == received.events)
                let sizes = Self.audio(received)
                let upstream = try await lab.upstream()
                let sentences = upstream.of(model: "sim-n4-g5-speech")
                #expect(sentences.count >= 30 && sentences.allSatisfy { $0.end == .done && $0.tag == job.id })
                #expect(sizes.reduce(0, +) == sentences.count * 4 * 1_920)
                let places = received.types.indices.filter { received.types[$0] == "audio" }
                let lastText = try #require(received.types.lastIndex(of: "text"))
                let before = places.count { $0 < lastText }
                #expect(before > 0, "\(before) of \(sizes.count) audio events came while the text was written")
                // A sentence takes at least the three gaps of 5 ms between its four tokens. With at most `together` concurrent requests, the
                // starts of one and of the `together`th request after it differ by at least that.
                let starts = sentences.map(\.accepted).sorted()
                for (earlier, later) in zip(starts, starts.dropFirst(together)) { #expect(later - earlier >= 14_000_000) }
                #expect(!worker.log.contains("speech failed"))
                await front.close()
            }
        }

        @Test func `an interrupt in the middle closes all upstream connections, and no audio follows`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1", Self.settings(lab, model: "sim-n3000-g20-speech"))
                let client = try await lab.client(lab.gateway())
                for _ in 0..<3 {
                    let model = lab.model("sim-n10000-g5")
                    let request = try await client.request(model: model, fields: [("require_tts", true)])
                    // Text and each sentence take about a minute.
                    try await until("some voice") { request.checker.voiceFrames >= 3 }
                    try await lab.running(3)
                    let answer = try await client.interrupt(.string(request.id))
                    #expect(answer["status"] == "SUCCESS")
                    let end = try await request.ended()
                    #expect(end.end == .interrupted && end.last?["phase"] == "streaming" && end.last?["voice_stream_seq"] == -1)
                    try await lab.running(0)
                    let upstream = try await lab.upstream()
                    #expect(upstream.requests.filter { $0.tag == end.job }.allSatisfy { $0.end == .clientClosed })
                    let total = upstream.total
                    let frames = request.checker.frames
                    // Long enough for many more frames.
                    #expect(
                        try await client.request(model: lab.model("sim-n20-g10"), fields: [("require_tts", false)]).ended().end == .finished
                    )
                    #expect(request.checker.frames == frames && client.problems.isEmpty)
                    #expect(try await lab.upstream().total == total + 1, "queued sentences are dropped")
                    let log = try await lab.log(request.job, model: model)
                    #expect(log.problems.isEmpty && log.types.last == "interrupted")
                }
            }
        }

        @Test func `an interrupt after the end of the text has the phase speaking`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1", Self.settings(lab, model: "sim-n400-g20-speech"))
                let front = try await FrontEnd(lab.redis)
                let model = lab.model("sim-n20-g1")
                let job = try await front.submit(model: model, fields: Self.speech)
                #expect(try await lab.endedRequest(model: model).end == .done)
                try await until("text and some voice") {
                    job.received.text == SimulatorText.tokens(20) && job.received.types.count { $0 == "audio" } >= 3
                }
                let record = try await job.record()
                #expect(job.received.end == nil && record["state"] == "running")
                try await front.publish(interrupt: job.id)
                let end = try await job.ended()
                #expect(end["type"] == "interrupted" && end["phase"] == "speaking", "\(end.text)")
                #expect(end["usage"]?["completion_tokens"] == 20 && end["usage"]?["estimated"] == false)
                #expect(job.received.problems.isEmpty)
                try await lab.running(0)
                await front.close()
            }
        }

        @Test(arguments: ["openai", "dashscope"])
        func `a failed synthesis does not fail the text`(kind: String) async throws {
            for suffix in ["e500", "e401", "k2", "d-x"] where kind == "dashscope" || suffix != "d-x" {
                try await withLab { lab in
                    let worker = try await lab.worker("w1", Self.settings(lab, kind: kind, model: "sim-n4-g5-\(suffix)"))
                    let front = try await FrontEnd(lab.redis)
                    let job = try await front.submit(model: lab.model("sim-n100-g2"), fields: Self.speech)
                    let end = try await job.ended()
                    #expect(end["type"] == "finished" && job.received.problems.isEmpty, "\(suffix): \(end.text)")
                    #expect(job.received.types.contains("audio"), "\(suffix): the voice is closed")
                    _ = Self.audio(job.received)
                    try await worker.logs("speech failed")
                    let asked = try await lab.upstream().of(model: "sim-n4-g5-\(suffix)").count
                    #expect(suffix == "e500" ? (3...6).contains(asked) : asked <= 2, "\(suffix): \(asked) requests")
                    let metrics = try await worker.get("/metrics").body
                    #expect(metrics.contains("sluice_speech_failed_total 1"), "\(suffix)")
                    await front.close()
                }
            }
        }

        /// A complete response with text or samples.
        private static func answer(_ word: String, type: String, _ body: String) -> CannedUpstream.Answer {
            .init(
                word: word,
                bytes: "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: \(type)\r\ncontent-length: \(body.utf8.count)\r\n\r\n\(body)")
        }

        private static func written(_ text: String) -> CannedUpstream.Answer {
            answer(
                "chat/completions", type: "text/event-stream",
                "data: {\"choices\":[{\"delta\":{\"content\":\"\(text)\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
        }

        @Test func `each sentence is requested once with its voice and delivered in order`() async throws {
            func samples(_ letter: String, _ count: Int) -> String { String(repeating: letter, count: count) }
            let upstream = try await CannedUpstream.start([
                Self.written("Alpha is first. Beta, the second one, is longer than all;\\n***\\n第三句话。 Delta"),
                Self.answer("Alpha is first.", type: "audio/pcm", samples("a", 60_001)),
                Self.answer("Beta, the second one,", type: "audio/pcm", samples("b", 10)),
                Self.answer("is longer than all;", type: "audio/pcm", samples("c", 700_000)),
                Self.answer("第三句话。", type: "audio/pcm", samples("d", 4)), Self.answer("Delta", type: "audio/pcm", samples("e", 2)),
            ])
            try await withLab(simulator: false) { lab in
                let worker = try await lab.worker(
                    "w1", ["SLUICE_UPSTREAM_URL": upstream.url, "SLUICE_SPEECH_URL": upstream.url, "SLUICE_SPEECH_KEY": lab.upstreamKey])
                let front = try await FrontEnd(lab.redis)
                let job = try await front.submit(model: "m", fields: [("speech", ["voice": "Nova", "model": "tts-9"])])
                #expect(try await job.ended()["type"] == "finished")
                _ = Self.audio(job.received)
                let sound = job.received.events.compactMap { $0["data"]?.string.flatMap { Data(base64Encoded: $0) } }.reduce(Data(), +)
                // An incomplete sample is dropped.
                let due = samples("a", 60_000) + samples("b", 10) + samples("c", 700_000) + samples("d", 4) + samples("e", 2)
                #expect(String(decoding: sound, as: UTF8.self) == due, "\(sound.count) of \(due.utf8.count) bytes")
                let asked = upstream.requests.filter { $0.contains("audio/speech") }
                #expect(asked.count == 5, "each once, and what cannot be spoken not at all")
                for request in asked {
                    #expect(
                        request.contains("\"voice\":\"Nova\"") && request.contains("\"model\":\"tts-9\"")
                            && request.contains("\"response_format\":\"pcm\""))
                    #expect(request.contains("Bearer \(lab.upstreamKey)") && request.contains("x-request-id: \(job.id)"))
                }
                #expect(!worker.log.contains("speech failed"))
                await front.close()
            }
            await upstream.close()
        }

        @Test func `a speech upstream that does not answer ends the audio, and other formats are rejected`() async throws {
            // It does not answer the speech request.
            let upstream = try await CannedUpstream.start([Self.written("Alpha is first. Beta.")])
            try await withLab(simulator: false) { lab in
                let worker = try await lab.worker(
                    "w1", ["SLUICE_UPSTREAM_URL": upstream.url, "SLUICE_SPEECH_URL": upstream.url, "SLUICE_IDLE_TIMEOUT": "500ms"])
                let front = try await FrontEnd(lab.redis)
                for (fields, code) in [(JSON.object(JSONObject()), "idle_timeout"), (["format": "mp3"], "unsupported_parameter")] {
                    let job = try await front.submit(model: "m", fields: [("speech", fields)])
                    #expect(try await job.ended()["type"] == "finished", "\(code)")
                    #expect(Self.audio(job.received) == [0] && job.received.text == "Alpha is first. Beta.", "\(code)")
                    try await worker.logs(code)
                }
                await front.close()
            }
            await upstream.close()
        }

        @Test func `a takeover continues the audio`() async throws {
            try await withLab { lab in
                let settings = Self.settings(lab, model: "sim-n4-g5-speech").merging([
                    "SLUICE_UPSTREAM_KIND": "dashscope", "SLUICE_UPSTREAM_URL": "http://127.0.0.1:\(lab.simulator.port)/api/v1",
                ]) { $1 }
                let first = try await lab.worker("w1", settings)
                let front = try await FrontEnd(lab.redis)
                let job = try await front.submit(model: lab.model("sim-n400-g10"), fields: Self.speech)
                try await until("some voice") { job.received.types.count { $0 == "audio" } >= 8 }
                _ = try await lab.worker("w2", settings)
                await first.kill9()
                #expect(try await job.ended()["type"] == "finished")
                let received = job.received
                #expect(
                    received.problems.isEmpty && received.types.contains("resumed") && received.attempts == [1, 2], "\(received.problems)")
                #expect(Self.audio(received).count > 16)
                await front.close()
            }
        }

        @Test func `a takeover after the end of the text requests only the remaining audio`() async throws {
            try await withLab { lab in
                // The upstream does not support continuation, which is not needed here.
                let settings = Self.settings(lab, model: "sim-n25-g20-speech")
                let workers = try await lab.workers(2, settings)
                let front = try await FrontEnd(lab.redis)
                // About a dozen sentences, half a second each.
                let model = lab.model("sim-n160-g1")
                let job = try await front.submit(model: model, fields: Self.speech)
                try await until("two sentences after the end of the text") {
                    let said = job.received.events.filter { $0["type"] == "audio" }
                    return said.last?["text_finish"] == "stop" && Set(said.compactMap { $0["text_offset"]?.integer }).count >= 3
                }
                try await lab.owner(of: job.id, among: workers).0.kill9()
                let end = try await job.ended()
                #expect(end["type"] == "finished" && end["reason"] == "stop", "\(end.text)")
                let received = job.received
                #expect(
                    received.problems.isEmpty && received.attempts == [1, 2] && received.text == SimulatorText.tokens(160),
                    "\(received.problems)")
                #expect(received.types.contains("resumed") && received.types.count { $0 == "finished" } == 1)
                #expect(try await lab.upstream().of(model: model).count == 1, "the text was there")
                #expect(try await job.log().events == received.events)
                _ = Self.audio(received)
                // No audio is repeated: the second attempt begins after the last sentence of the first.
                func offsets(_ attempt: String) -> [Int] {
                    received.events.filter { $0["type"] == "audio" && $0["id"]?.string?.hasPrefix(attempt) == true }
                        .compactMap { $0["text_offset"]?.integer }
                }
                let (before, after) = (offsets("1-"), offsets("2-"))
                #expect(before == before.sorted() && after == after.sorted() && !after.isEmpty)
                #expect((before.last ?? .max) < (after.first ?? .min))
                let sentences = try await lab.upstream().of(model: "sim-n25-g20-speech").filter { $0.end == .done }
                #expect(Set(before).union(after).count == Set(before).count + Set(after).count && sentences.count >= Set(after).count)
                await front.close()
            }
        }

        @Test func `a drained worker drops the remaining audio of a complete text`() async throws {
            try await withLab { lab in
                let worker = try await lab.worker(
                    "w1", Self.settings(lab, model: "sim-n400-g20-speech").merging(["SLUICE_DRAIN_TIMEOUT": "300ms"]) { $1 })
                let front = try await FrontEnd(lab.redis)
                let model = lab.model("sim-n20-g1")
                let job = try await front.submit(model: model, fields: Self.speech)
                try await until("text and some voice") {
                    job.received.text == SimulatorText.tokens(20) && job.received.types.count { $0 == "audio" } >= 3
                }
                worker.terminate()
                #expect(try await job.ended()["type"] == "finished" && job.received.problems.isEmpty)
                _ = Self.audio(job.received)
                #expect(try await worker.ended() == .exited(0))
                #expect(try await lab.upstream().of(model: model).count == 1)
                await front.close()
            }
        }
    }
}
