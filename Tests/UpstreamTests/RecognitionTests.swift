import Contract
import CurlTransport
import JSONCodec
import Testing

@testable import Upstream

/// Requests to recognition and retrieval upstreams, and their responses.
@Suite struct RecognitionTests {
    private static let audio: [UInt8] = [1, 0, 2, 0]

    private static func exchange(
        _ kind: RecognitionConfiguration.Kind, language: String? = nil, isWAV: Bool = false
    ) throws -> (url: String, headers: [String], contentType: String, body: [UInt8]) {
        let configuration = RecognitionConfiguration(kind: kind, url: "http://h/v1/", key: "k-1", model: nil, language: "de")
        let request = RecognitionRequest(
            jobID: try #require(JobID("p0-J")), audio: audio, isWAV: isWAV, language: language, traceparent: nil)
        let exchange = try request.exchange(on: configuration)
        return (exchange.url, exchange.headers, exchange.contentType, exchange.body)
    }

    @Test func `a transcription is a form with a WAV file`() throws {
        let (url, headers, contentType, body) = try Self.exchange(.openai)
        #expect(url == "http://h/v1/audio/transcriptions" && headers.contains("Authorization: Bearer k-1"))
        #expect(headers.contains("x-request-id: p0-J"))
        let boundary = try #require(contentType.split(separator: "boundary=").last)
        let text = String(decoding: body, as: UTF8.self)
        #expect(text.hasPrefix("--\(boundary)\r\n") && text.hasSuffix("\r\n--\(boundary)--\r\n"))
        for field in ["name=\"model\"\r\n\r\nwhisper-1\r\n", "name=\"language\"\r\n\r\nde\r\n", "name=\"file\"; filename=\"audio.wav\""] {
            #expect(text.contains(field), "\(field)")
        }
        let wave = try #require(body.firstRange(of: Array("RIFF".utf8))).lowerBound
        let file = Array(body[wave..<wave + 44 + Self.audio.count])
        #expect(file.suffix(4) == Self.audio[...], "the samples follow the header of 44 bytes")
        #expect(file[40..<44] == [4, 0, 0, 0] && file[24..<28] == [0x80, 0x3E, 0, 0], "4 bytes at 16,000 Hz")
        let (_, _, _, whole) = try Self.exchange(.openai, language: "fr", isWAV: true)
        #expect(whole.firstRange(of: Array("RIFF".utf8)) == nil, "a WAV file is sent as it is")
        #expect(String(decoding: whole, as: UTF8.self).contains("\r\n\r\nfr\r\n"), "the job's language goes first")
    }

    @Test func `DashScope gets the audio in a message`() throws {
        let (url, _, contentType, body) = try Self.exchange(.dashscope)
        #expect(url == "http://h/v1/services/aigc/multimodal-generation/generation" && contentType == "application/json")
        let json = try JSON(parsing: body)
        #expect(json["model"] == "qwen3-asr-flash" && json["parameters"]?["asr_options"]?["language"] == "de")
        let audio = json["input"]?["messages"]?[0]?["content"]?[0]?["audio"]?.string
        #expect(audio?.hasPrefix("data:audio/wav;base64,UklGR") == true)
    }

    @Test func `transcripts`() throws {
        let table: [(RecognitionConfiguration.Kind, String, String?)] = [
            (.openai, #"{"text":" Hello there. "}"#, "Hello there."), (.openai, #"{"text":""}"#, ""), (.openai, #"{"text":" . "}"#, ""),
            (.openai, #"{"text":"[BLANK_AUDIO]"}"#, ""), (.openai, #"{"text":"[no speech]"}"#, ""), (.openai, #"{"text":"(silence)"}"#, ""),
            (.openai, #"{"text":"[laughs] Yes"}"#, "[laughs] Yes"), (.openai, "{}", nil), (.openai, "<html>", nil),
            (.openai, #"{"text":1}"#, nil),
            (.dashscope, #"{"output":{"choices":[{"message":{"content":[{"text":"今天"},{"text":"好"}]}}]}}"#, "今天好"),
            (.dashscope, #"{"output":{"choices":[{"message":{"content":[]}}]}}"#, ""),
        ]
        for (kind, body, expected) in table {
            do throws(Failure) {
                let text = try Transcript.text(of: Array(body.utf8), kind: kind)
                #expect(text == expected, "\(body)")
            } catch {
                #expect(expected == nil && error.code == .upstreamProtocol, "\(body)")
            }
        }
    }

    @Test func `errors inside a response of status 200`() throws {
        let table: [(RecognitionConfiguration.Kind, String, FailureCode, Bool, String)] = [
            (.dashscope, #"{"code":"InvalidParameter","message":"bad audio"}"#, .invalidRequest, false, "bad audio"),
            (.dashscope, #"{"code":"Throttling.RateQuota","message":"slow down"}"#, .rateLimited, true, "slow down"),
            (.openai, #"{"error":{"message":"busy","type":"server_error"}}"#, .upstreamError, true, "busy"),
            (.openai, #"{"error":{"message":"the model is loading","code":503}}"#, .overloaded, true, "the model is loading"),
            (.openai, #"[{"error":{"message":"no key","code":401}}]"#, .authentication, false, "no key"),
            (.openai, #"{"detail":[{"msg":"file is too long"}]}"#, .upstreamProtocol, false, "file is too long"),
        ]
        for (kind, body, code, retryable, words) in table {
            do throws(Failure) {
                Issue.record("\(try Transcript.text(of: Array(body.utf8), kind: kind))")
            } catch {
                #expect(error.code == code && error.retryable == retryable && error.message.contains(words), "\(body): \(error)")
            }
        }
        let retrieval = #expect(throws: Failure.self) { try Artifacts(Array(#"{"detail":"index is empty"}"#.utf8)) }
        #expect(retrieval?.message.contains("index is empty") == true)
    }

    @Test func `bytes that are not UTF-8 are repaired`() throws {
        let text = Array(#"{"text":"caf"#.utf8) + [0xE9] + Array(#" is open"}"#.utf8)
        #expect(try Transcript.text(of: text, kind: .openai) == "caf\u{FFFD} is open")
        let documents = Array(#"{"artifacts":[{"content":"na"#.utf8) + [0xEF] + Array(#"ve"}]}"#.utf8)
        #expect(try Artifacts(documents).text == "na\u{FFFD}ve\n\n")
    }

    @Test func `documents of a retrieval`() throws {
        let body = #"{"artifacts":[{"title":"A","content":"one"},{"title":"B"},{"content":"two"},{"title":"C","content":""}]}"#
        let artifacts = try Artifacts(Array(body.utf8))
        #expect(artifacts.text == "A\none\n\ntwo\n\n" && artifacts.count == 2)
        let large = #"{"artifacts":[{"content":"\#(String(repeating: "x", count: 70_000))"},{"content":"small"}]}"#
        #expect(try Artifacts(Array(large.utf8)).count == 1, "a document that is too large is left out")
        for text in ["{}", "no", #"{"artifacts":{}}"#] {
            #expect(throws: Failure.self, "\(text)") { try Artifacts(Array(text.utf8)) }
        }
        var configuration = RetrievalConfiguration(url: "http://h/api", key: "secret")
        configuration.topK = 5
        let id = try #require(JobID("p0-J"))
        let exchange = try RetrievalRequest(jobID: id, query: "why?", traceparent: nil).exchange(on: configuration)
        #expect(exchange.url == "http://h/api/search/retrieve" && exchange.headers.contains("X-API-Key: secret"))
        #expect(String(decoding: exchange.body, as: UTF8.self) == #"{"query":"why?","top_k":5,"threshold":0.5}"#)
    }
}
