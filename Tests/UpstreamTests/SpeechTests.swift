import Contract
import Support
import Testing

@testable import CurlTransport
@testable import Upstream

@Suite struct SpeechTests {
    private static let stream = Array(
        ("id:1\nevent:result\n:HTTP_STATUS/200\ndata:{\"output\":{\"audio\":{\"data\":\"AQID\",\"url\":\"\"},\"finish_reason\":\"null\"},\"usage\":{}}\n\n"
            + "id:2\nevent:result\n:HTTP_STATUS/200\ndata:{\"output\":{\"audio\":{\"data\":\"BAU=\",\"url\":\"\"},\ndata:\"finish_reason\":\"null\"}}\n\n"
            + "id:3\nevent:result\n:HTTP_STATUS/200\ndata:{\"output\":{\"audio\":{\"data\":\"\",\"url\":\"https://x/y.wav\"},\"finish_reason\":\"stop\"}}\n\n")
            .utf8)

    private static func read(_ decoder: any SpeechDecoder, _ pieces: [ArraySlice<UInt8>]) throws -> [UInt8] {
        var samples: [UInt8] = []
        for piece in pieces {
            try decoder.receive(Array(piece).span, into: &samples)
        }
        try decoder.finish(into: &samples)
        return samples
    }

    @Test func `the samples do not depend on the pieces`() throws {
        for cut in 0...Self.stream.count {
            let decoder = DashScopeSpeechDecoder()
            #expect(try Self.read(decoder, [Self.stream[..<cut], Self.stream[cut...]]) == [1, 2, 3, 4, 5], "cut at \(cut)")
            #expect(decoder.isComplete)
        }
    }

    @Test func `a truncated stream is not complete`() throws {
        let decoder = DashScopeSpeechDecoder()
        let first = try #require(Self.stream.firstRange(of: Array("\n\n".utf8)))
        #expect(try Self.read(decoder, [Self.stream[..<first.upperBound]]) == [1, 2, 3])
        #expect(!decoder.isComplete)
        let samples = SampleDecoder()
        #expect(try Self.read(samples, []) == [] && !samples.isComplete)
        let some = SampleDecoder()
        #expect(try Self.read(some, [[1, 2, 3]]) == [1, 2, 3] && some.isComplete)
    }

    @Test(arguments: [
        (
            "event:error\n:HTTP_STATUS/429\ndata:{\"code\":\"Throttling.RateQuota\",\"message\":\"slow\",\"request_id\":\"r\"}\n\n",
            FailureCode.rateLimited
        ),
        ("data:{\"code\":\"InvalidApiKey\",\"message\":\"no\"}\n\n", .authentication), ("data:{\"output\":[]}\n\n", .upstreamProtocol),
        ("data:{\"output\":{\"audio\":{\"data\":\"!!\"}}}\n\n", .upstreamProtocol),
    ]) func `errors inside a stream`(_ text: String, _ code: FailureCode) {
        #expect { try Self.read(DashScopeSpeechDecoder(), [Array(text.utf8)[...]]) } throws: { ($0 as? Failure)?.code == code }
    }

    @Test func `a response that is not audio is rejected`() {
        for type in ["text/html", "application/json", "text/plain"] {
            var head = HTTPResponseHead()
            head.status = 200
            head.contentType = type
            for kind in SpeechConfiguration.Kind.allCases { #expect(throws: Failure.self) { _ = try kind.decoder(for: head) } }
        }
    }

    /// A WAV header whose sizes are unknown, as servers that stream write it.
    private static func wave(channels: UInt8 = 1, rate: UInt16 = 24_000) -> [UInt8] {
        var bytes = Array("RIFF".utf8)
        bytes += [255, 255, 255, 255]
        bytes += Array("WAVELIST".utf8)
        bytes += [2, 0, 0, 0, 1, 2]
        bytes += Array("fmt ".utf8)
        bytes += [16, 0, 0, 0, 1, 0, channels, 0]
        bytes += [UInt8(rate & 255), UInt8(rate >> 8), 0, 0]
        bytes += [0, 0, 0, 0, 2, 0, 16, 0]
        bytes += Array("data".utf8)
        return bytes + [255, 255, 255, 255]
    }

    @Test func `the header of a WAV file is removed`() throws {
        let bytes = Self.wave() + [1, 2, 3]
        for cut in 0...bytes.count { #expect(try Self.read(SampleDecoder(), [bytes[..<cut], bytes[cut...]]) == [1, 2, 3]) }
        var sized = Self.wave()
        sized.replaceSubrange(sized.count - 4..<sized.count, with: [2, 0, 0, 0])
        #expect(try Self.read(SampleDecoder(), [(sized + [1, 2, 3, 4])[...]]) == [1, 2])
        for header in [Self.wave(channels: 2), Self.wave(rate: 8_000), Array(Self.wave().prefix(20))] {
            #expect(throws: Failure.self) { try Self.read(SampleDecoder(), [header[...]]) }
        }
    }

    @Test func `compressed audio is rejected`() throws {
        let frame: [UInt8] = [0xFF, 0xF3, 0x84, 0xC4] + Array(repeating: 0, count: 188)
        let movie: [UInt8] = [0, 0, 0, 24] + Array("ftypM4A ".utf8)
        let inputs: [[UInt8]] = [Array("ID3abc".utf8), Array("OggSabc".utf8), movie, frame + frame]
        for bytes in inputs {
            #expect(throws: Failure.self) { try Self.read(SampleDecoder(), [bytes[...]]) }
        }
        #expect(try Self.read(SampleDecoder(), [(frame + [1, 0])[...]]).count == 194)
        #expect(throws: Failure.self) {
            _ = try SpeechConfiguration.Kind.openai.decoder(for: HTTPResponseHead(status: 200, contentType: "audio/mpeg"))
        }
    }

    @Test(
        arguments: [([], ""), ([102], "Zg=="), ([102, 111], "Zm8="), ([102, 111, 111], "Zm9v"), ([251, 255, 191, 0], "+/+/AA==")]
            as [([UInt8], String)])
    func `base64 of known values`(bytes: [UInt8], text: String) {
        #expect(Base64.encode(bytes) == text)
        var out: [UInt8] = []
        #expect(Base64.decode(text, into: &out) && out == bytes)
    }

    @Test func `base64 of random bytes`() {
        for count in 0..<200 {
            let bytes = (0..<count).map { _ in UInt8.random(in: 0...255) }
            var out: [UInt8] = []
            #expect(Base64.decode(Base64.encode(bytes), into: &out) && out == bytes)
        }
        for rubbish in ["A", "AB=C", "A===", "AA A", "ÄÖ"] {
            var out: [UInt8] = []
            #expect(!Base64.decode(rubbish, into: &out), "\(rubbish)")
        }
    }

    @Test func `requests in the providers' formats`() throws {
        let request = SpeechRequest(jobID: try #require(JobID("p0-test")), text: "Hi.", model: "m", voice: "v")
        let openAI = try request.exchange(
            on: SpeechConfiguration(kind: .openai, url: "http://h/v1/", key: "sk-canary", model: nil, voice: nil))
        #expect(openAI.url == "http://h/v1/audio/speech" && openAI.headers.contains("Authorization: Bearer sk-canary"))
        #expect(String(decoding: openAI.body, as: UTF8.self) == #"{"model":"m","voice":"v","input":"Hi.","response_format":"pcm"}"#)
        let dashScope = try request.exchange(
            on: SpeechConfiguration(kind: .dashscope, url: "http://h/api/v1", key: nil, model: nil, voice: nil))
        #expect(dashScope.url == "http://h/api/v1/services/aigc/multimodal-generation/generation")
        #expect(dashScope.headers == ["x-request-id: p0-test", "X-DashScope-SSE: enable"])
        #expect(String(decoding: dashScope.body, as: UTF8.self) == #"{"model":"m","input":{"text":"Hi.","voice":"v"}}"#)
        #expect(throws: Failure.self) {
            _ = try request.exchange(
                on: SpeechConfiguration(kind: .openai, url: "http://h", key: "sk\r\nHost: evil", model: nil, voice: nil))
        }
    }

    /// The synthesis ends at its finish reason, even if the body stays open. If the body ends soon, the connection is reused.
    @Test(arguments: [true, false]) func `a sentence ends at its finish reason`(bodyEnds: Bool) async throws {
        let server = try await RawServer { exchange in
            exchange.beginStream()
            exchange.chunk(String(decoding: Self.stream, as: UTF8.self))
            if bodyEnds { exchange.endStream() }
        }
        let url = "http://127.0.0.1:\(server.port)/api/v1"
        try await Caller.with { caller in
            for _ in 0..<2 {
                let recording = try await caller.speak(
                    on: SpeechConfiguration(kind: .dashscope, url: url, key: nil, model: nil, voice: nil))
                #expect(recording.samples == [1, 2, 3, 4, 5] && recording.failure == nil)
            }
            #expect(await caller.openCalls == 0)
        }
        #expect(server.accepted == (bodyEnds ? 1 : 2))
        try await server.stop()
    }
}

/// The result of a synthesis.
struct SpeechRecording: Sendable {
    var samples: [UInt8] = []
    var failure: Failure?
}

final class Listener: SpeechReceiver {
    var recording = SpeechRecording()
    var waiter: CheckedContinuation<SpeechRecording, Never>?

    func speechProduced(_ samples: [UInt8]) { recording.samples += samples }

    func speechEnded(_ failure: Failure?) {
        recording.failure = failure
        waiter?.resume(returning: recording)
        waiter = nil
    }
}

extension Caller {
    func speak(on speech: SpeechConfiguration, jobID: JobID = JobID("p0-test")!) async throws -> SpeechRecording {
        let listener = Listener()
        let request = SpeechRequest(jobID: jobID, text: "Hi.", model: "m", voice: "v")
        _ = try client.speak(request, on: speech, receiver: listener)
        return await withCheckedContinuation { listener.waiter = $0 }
    }
}
