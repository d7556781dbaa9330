import Contract
import JSONCodec
import JobQueue
import TestSupport
import Testing

@testable import Gateway

@Suite(.redis, .timeLimit(.minutes(10))) struct SupersedeTests {
    @Test func `a refused request that would supersede an answer lets it speak on`() async throws {
        try await withWebSocketLab { lab in
            let client = try await lab.client(try await lab.gateway(), [("require_tts", true)])
            let samples = Base64Samples.silence(milliseconds: 100)
            func audio(_ index: Int) -> GenerationEvent {
                .audio(Audio(index: index, format: "pcm", data: samples, last: false, textOffset: 0, textEnd: 5))
            }
            let answer = try await client.request("talk", model: "m")
            let job = try await lab.claim()
            try await job.write(.upstream(name: "u", model: "m"), .text("Hello"), audio(0))
            try await until("the voice") { answer.checker.voiceFrames == 1 }
            func fill(_ number: Int) async throws -> Submission {
                let waiting = Job(
                    id: JobID("p0-w\(number)")!, priority: .interactive, request: JSONObject([.init(name: "model", value: "m")]), owner: "x"
                )
                return try await lab.queue.submit(waiting, options: SubmitOptions())
            }
            var count = 0
            while count < 10, try await fill(count) == .accepted { count += 1 }
            #expect(count < 10, "the queue is full")
            let refused = try await client.request("stop", model: "m", fields: [("supersede", true)])
            try await until("the refusal") { refused.checker.end == .failed }
            try await job.write(audio(1))
            try await job.end(.finished(.stop, Usage(promptTokens: 1, completionTokens: 1, estimated: false)))
            let end = try await answer.ended()
            #expect(end.end == .finished && end.voiceFrames == 2 && client.problems.isEmpty, "\(client.problems)")
            await client.close()
        }
    }
}
