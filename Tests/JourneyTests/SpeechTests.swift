import Contract
import Foundation
import JSONCodec
import TestSupport
import Testing

extension Journeys {
    /// The voice: it comes while the text is still being written, and an interrupt silences it.
    @Suite struct SpeechTests {
        private static func settings(_ lab: Lab, kind: String = "openai", model: String) -> [String: String?] {
            [
                "SLUICE_SPEECH_KIND": kind,
                "SLUICE_SPEECH_URL": "http://127.0.0.1:\(lab.simulator.port)\(kind == "openai" ? "/v1" : "/api/v1")",
                "SLUICE_SPEECH_KEY": lab.upstreamKey, "SLUICE_SPEECH_MODEL": model,
            ]
        }

        private static let speech: [(String, JSON)] = [("speech", .object(JSONObject()))]

        /// Bytes of samples in each audio event; what is wrong with them is told.
        private static func audio(_ judge: EventJudge) -> [Int] {
            var sizes: [Int] = []
            let events = judge.events.filter { $0["type"] == "audio" }
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
        func `text and audio of thirty sentences come interleaved and in order`(kind: String) async throws {
            try await withLab { lab in
                // Of one job never more than two at once, and of a worker never more than its limit.
                let together = kind == "dashscope" ? 1 : 2
                let settings = Self.settings(lab, kind: kind, model: "sim-n4-g5-speech")
                    .merging(["SLUICE_SPEECH_CONCURRENCY": together == 1 ? "1" : "256"]) { $1 }
                let worker = try await lab.worker("w1", settings)
                let front = try await FrontEnd(lab.redis)
                // No marks in it: about sixty characters each are a sentence.
                let job = try await front.submit(model: lab.model("sim-n420-g5"), fields: Self.speech)
                let end = try await job.ended()
                #expect(end["type"] == "finished" && end["usage"]?["completion_tokens"] == 420, "\(end.text)")
                let heard = job.heard
                #expect(heard.problems.isEmpty && heard.text == SimulatorText.tokens(420))
                #expect(try await job.log().events == heard.events)
                let sizes = Self.audio(heard)
                let upstream = try await lab.upstream()
                let sentences = upstream.of(model: "sim-n4-g5-speech")
                #expect(sentences.count >= 30 && sentences.allSatisfy { $0.end == .done && $0.tag == job.id })
                #expect(sizes.reduce(0, +) == sentences.count * 4 * 1_920)
                let places = heard.types.indices.filter { heard.types[$0] == "audio" }
                let lastText = try #require(heard.types.lastIndex(of: "text"))
                let before = places.count { $0 < lastText }
                #expect(before > sizes.count / 2, "\(before) of \(sizes.count) audio events came while the text was written")
                for one in sentences {
                    // The simulator notes an end when the last write is done; the worker may have read it and sent the next request by then.
                    let overlap = 5_000_000
                    let others = sentences.count { $0.accepted < one.accepted && $0.ended ?? .max > one.accepted + overlap }
                    #expect(others < together)
                }
                #expect(!worker.log.contains("speech failed"))
                await front.close()
            }
        }

        @Test func `an interrupt in the middle closes all sockets within 50 ms, and no sound follows`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1", Self.settings(lab, model: "sim-n50-g20-speech"))
                let client = try await lab.client(lab.gateway())
                var best = Int.max
                for _ in 0..<3 {
                    let model = lab.model("sim-n2000-g5")
                    let request = try await client.request(model: model, fields: [("require_tts", true)])
                    try await until("some voice") { request.judge.voiceFrames >= 3 }
                    try await lab.running(3)
                    let sent = monotonicNanoseconds()
                    let answer = try await client.interrupt(.string(request.id))
                    #expect(answer["status"] == "SUCCESS")
                    let end = try await request.ended(deadline: .seconds(5))
                    #expect(end.end == .interrupted && end.last?["phase"] == "streaming" && end.last?["voice_stream_seq"] == -1)
                    try await lab.running(0)
                    let upstream = try await lab.upstream()
                    #expect(upstream.requests.filter { $0.tag == end.job }.allSatisfy { $0.end == .clientClosed || $0.end == .done })
                    best = min(best, (upstream.requests.compactMap(\.ended).max() ?? .max) - sent)
                    let total = upstream.total
                    let frames = request.judge.frames
                    // Long enough for many more pieces, were there any.
                    #expect(try await client.request(model: lab.model("sim-n20-g10")).ended().end == .finished)
                    #expect(request.judge.frames == frames && client.problems.isEmpty)
                    #expect(try await lab.upstream().total == total + 1, "queued sentences are dropped")
                    let log = try await lab.log(request.job, model: model)
                    #expect(log.problems.isEmpty && log.types.last == "interrupted")
                }
                #expect(best < 50_000_000, "closed after \(best / 1_000) µs")
            }
        }

        @Test func `when only the voice is left the job speaks on, and an interrupt says so`() async throws {
            try await withLab { lab in
                _ = try await lab.worker("w1", Self.settings(lab, model: "sim-n400-g20-speech"))
                let front = try await FrontEnd(lab.redis)
                let model = lab.model("sim-n20-g1")
                let job = try await front.submit(model: model, fields: Self.speech)
                #expect(try await lab.endedRequest(model: model).end == .done)
                try await until("text and some voice") {
                    job.heard.text == SimulatorText.tokens(20) && job.heard.types.count { $0 == "audio" } >= 3
                }
                let record = try await job.record()
                #expect(job.heard.end == nil && record["state"] == "running")
                try await front.publish(interrupt: job.id)
                let end = try await job.ended(deadline: .seconds(5))
                #expect(end["type"] == "interrupted" && end["phase"] == "speaking", "\(end.text)")
                #expect(end["usage"]?["completion_tokens"] == 20 && end["usage"]?["estimated"] == false)
                #expect(job.heard.problems.isEmpty)
                try await lab.running(0)
                await front.close()
            }
        }

        @Test(arguments: ["openai", "dashscope"])
        func `a synthesis that fails does not fail the text`(kind: String) async throws {
            for suffix in ["e500", "e401", "k2", "d-x"] where kind == "dashscope" || suffix != "d-x" {
                try await withLab { lab in
                    let worker = try await lab.worker("w1", Self.settings(lab, kind: kind, model: "sim-n4-g5-\(suffix)"))
                    let front = try await FrontEnd(lab.redis)
                    let job = try await front.submit(model: lab.model("sim-n100-g2"), fields: Self.speech)
                    let end = try await job.ended()
                    #expect(end["type"] == "finished" && job.heard.problems.isEmpty, "\(suffix): \(end.text)")
                    #expect(job.heard.types.contains("audio"), "\(suffix): the voice is closed")
                    _ = Self.audio(job.heard)
                    #expect(worker.log.contains("speech failed"), "\(suffix)")
                    let asked = try await lab.upstream().of(model: "sim-n4-g5-\(suffix)").count
                    #expect(suffix == "e500" ? (3...6).contains(asked) : asked <= 2, "\(suffix): \(asked) requests")
                    let metrics = try await worker.get("/metrics").body
                    #expect(metrics.contains("sluice_speech_failed_total 1"), "\(suffix)")
                    await front.close()
                }
            }
        }

        /// An answer that is whole at once, of one text or of samples.
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

        @Test func `each sentence is asked for once, with its voice, and told in its place`() async throws {
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
                _ = Self.audio(job.heard)
                let sound = job.heard.events.compactMap { $0["data"]?.string.flatMap { Data(base64Encoded: $0) } }.reduce(Data(), +)
                // A sample that was cut in two is left out.
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

        @Test func `a speech upstream that is silent ends the voice, and other formats are refused`() async throws {
            // It takes the request for speech and never answers.
            let upstream = try await CannedUpstream.start([Self.written("Alpha is first. Beta.")])
            try await withLab(simulator: false) { lab in
                let worker = try await lab.worker(
                    "w1", ["SLUICE_UPSTREAM_URL": upstream.url, "SLUICE_SPEECH_URL": upstream.url, "SLUICE_IDLE_TIMEOUT": "500ms"])
                let front = try await FrontEnd(lab.redis)
                for (fields, code) in [(JSON.object(JSONObject()), "idle_timeout"), (["format": "mp3"], "unsupported_parameter")] {
                    let job = try await front.submit(model: "m", fields: [("speech", fields)])
                    #expect(try await job.ended()["type"] == "finished", "\(code)")
                    #expect(Self.audio(job.heard) == [0] && job.heard.text == "Alpha is first. Beta.", "\(code)")
                    #expect(worker.log.contains(code))
                }
                await front.close()
            }
            await upstream.close()
        }

        @Test func `a worker that takes over goes on with the voice`() async throws {
            try await withLab { lab in
                let settings = Self.settings(lab, model: "sim-n4-g5-speech").merging([
                    "SLUICE_UPSTREAM_KIND": "dashscope", "SLUICE_UPSTREAM_URL": "http://127.0.0.1:\(lab.simulator.port)/api/v1",
                ]) { $1 }
                let first = try await lab.worker("w1", settings)
                let front = try await FrontEnd(lab.redis)
                let job = try await front.submit(model: lab.model("sim-n400-g10"), fields: Self.speech)
                try await until("some voice") { job.heard.types.count { $0 == "audio" } >= 8 }
                _ = try await lab.worker("w2", settings)
                await first.kill9()
                #expect(try await job.ended(deadline: .seconds(30))["type"] == "finished")
                let heard = job.heard
                #expect(heard.problems.isEmpty && heard.types.contains("resumed") && heard.attempts == [1, 2], "\(heard.problems)")
                #expect(Self.audio(heard).count > 16)
                await front.close()
            }
        }

        @Test func `a worker lost while only the voice is left is followed by one that speaks the rest, and asks for no text`() async throws
        {
            try await withLab { lab in
                // The upstream could not go on from a text; it need not.
                let settings = Self.settings(lab, model: "sim-n25-g20-speech")
                let workers = try await lab.workers(2, settings)
                let front = try await FrontEnd(lab.redis)
                // About a dozen sentences, half a second each.
                let model = lab.model("sim-n160-g1")
                let job = try await front.submit(model: model, fields: Self.speech)
                try await until("two sentences heard after the end of the text") {
                    let said = job.heard.events.filter { $0["type"] == "audio" }
                    return said.last?["text_finish"] == "stop" && Set(said.compactMap { $0["text_offset"]?.integer }).count >= 3
                }
                try await lab.owner(of: job.id, among: workers).0.kill9()
                let end = try await job.ended(deadline: .seconds(30))
                #expect(end["type"] == "finished" && end["reason"] == "stop", "\(end.text)")
                let heard = job.heard
                #expect(heard.problems.isEmpty && heard.attempts == [1, 2] && heard.text == SimulatorText.tokens(160), "\(heard.problems)")
                #expect(heard.types.contains("resumed") && heard.types.count { $0 == "finished" } == 1)
                #expect(try await lab.upstream().of(model: model).count == 1, "the text was there")
                #expect(try await job.log().events == heard.events)
                _ = Self.audio(heard)
                // Nothing is heard twice: the second attempt begins behind the sentence in which the first one was lost.
                func offsets(_ attempt: String) -> [Int] {
                    heard.events.filter { $0["type"] == "audio" && $0["id"]?.string?.hasPrefix(attempt) == true }
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

        @Test func `a drained worker lets the voice go when the text is complete`() async throws {
            try await withLab { lab in
                let worker = try await lab.worker(
                    "w1", Self.settings(lab, model: "sim-n400-g20-speech").merging(["SLUICE_DRAIN_TIMEOUT": "300ms"]) { $1 })
                let front = try await FrontEnd(lab.redis)
                let model = lab.model("sim-n20-g1")
                let job = try await front.submit(model: model, fields: Self.speech)
                try await until("text and some voice") {
                    job.heard.text == SimulatorText.tokens(20) && job.heard.types.count { $0 == "audio" } >= 3
                }
                worker.terminate()
                #expect(try await job.ended()["type"] == "finished" && job.heard.problems.isEmpty)
                _ = Self.audio(job.heard)
                #expect(try await worker.ended(within: .seconds(5)) == .exited(0))
                #expect(try await lab.upstream().of(model: model).count == 1)
                await front.close()
            }
        }
    }
}
