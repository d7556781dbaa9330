import Contract
import CurlTransport
import JSONCodec
import Support

/// A request to transcribe the audio of one utterance.
package struct RecognitionRequest: Sendable {
    /// Sample rate of `pcm` audio, in Hz.
    package static let sampleRate = 16_000

    package var jobID: JobID
    /// PCM (16 kHz, 16 bits, mono, little-endian) or a WAV file.
    package var audio: [UInt8]
    package var isWAV: Bool
    /// Nil: the configured language.
    package var language: String?
    /// W3C Trace Context header of the job, unvalidated.
    package var traceparent: String?

    package init(jobID: JobID, audio: [UInt8], isWAV: Bool, language: String?, traceparent: String?) {
        self.jobID = jobID
        self.audio = audio
        self.isWAV = isWAV
        self.language = language
        self.traceparent = traceparent
    }

    /// The audio as a WAV file.
    var wave: [UInt8] { isWAV ? audio : Self.waveHeader(bytes: audio.count) + audio }

    private static func waveHeader(bytes: Int) -> [UInt8] {
        func little(_ value: Int, _ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
        let rate = sampleRate
        let format = little(16, 4) + little(1, 2) + little(1, 2) + little(rate, 4) + little(rate * 2, 4) + little(2, 2) + little(16, 2)
        return Array("RIFF".utf8) + little(36 + bytes, 4) + Array("WAVEfmt ".utf8) + format + Array("data".utf8) + little(bytes, 4)
    }

    /// Builds the HTTP request. OpenAI: `POST /audio/transcriptions`, multipart. DashScope: Qwen-ASR by multimodal generation.
    /// - Throws: `authentication` if the key is not a valid header value.
    func exchange(on recognition: RecognitionConfiguration) throws(Failure) -> HTTPRequest {
        var headers = RequestRules.headers(of: jobID, traceparent: traceparent)
        if let key = try RequestRules.key(of: recognition.upstream) { headers.append("Authorization: Bearer \(key)") }
        let language = language ?? recognition.language
        switch recognition.kind {
        case .openai:
            let boundary = "sluice-\(ULID(milliseconds: UInt64(max(0, WallClock.milliseconds))))"
            var request = HTTPRequest(
                url: RequestRules.url(recognition.upstream, "/audio/transcriptions"), headers: headers,
                body: multipart(boundary, model: recognition.model, language: language))
            request.contentType = "multipart/form-data; boundary=\(boundary)"
            return request
        case .dashscope:
            let audio: JSON = .string("data:audio/wav;base64,\(Base64.encode(wave))")
            var options = JSONObject()
            options["language"] = language.map(JSON.string)
            options["enable_itn"] = false
            let body: JSON = [
                "model": .string(recognition.model), "input": ["messages": [["role": "user", "content": [["audio": audio]]]]],
                "parameters": ["asr_options": .object(options)],
            ]
            return HTTPRequest(
                url: RequestRules.url(recognition.upstream, "/services/aigc/multimodal-generation/generation"), headers: headers,
                body: body.bytes)
        }
    }

    /// The form of OpenAI's transcription (RFC 7578).
    private func multipart(_ boundary: String, model: String, language: String?) -> [UInt8] {
        var body: [UInt8] = []
        func field(_ name: String, _ value: String) {
            body += "--\(boundary)\r\nContent-Disposition: form-data; name=\"\(name)\"\r\n\r\n\(value)\r\n".utf8
        }
        field("model", model)
        field("response_format", "json")
        if let language { field("language", language) }
        body += "--\(boundary)\r\nContent-Disposition: form-data; name=\"file\"; filename=\"audio.wav\"\r\n".utf8
        body += "Content-Type: audio/wav\r\n\r\n".utf8
        body += wave
        body += "\r\n--\(boundary)--\r\n".utf8
        return body
    }
}

/// The response of a recognition upstream.
package enum Transcript {
    /// Extracts the text: OpenAI `{"text":…}`, DashScope `output.choices[0].message.content[0].text`.
    /// - Throws: `upstream_protocol` for a response without one, or the failure that the provider reported.
    package static func text(of body: [UInt8], kind: RecognitionConfiguration.Kind) throws(Failure) -> String {
        let json: JSON
        do { json = try JSON(upstream: body) } catch {
            throw Failure(.upstreamProtocol, "the recognition upstream's response is not JSON: \(error)")
        }
        let text: String?
        switch kind {
        case .openai: text = json["text"]?.string
        case .dashscope:
            let content = json["output"]?["choices"]?[0]?["message"]?["content"]
            // An empty list is the answer to silence.
            text = content?.string ?? content?.array.map { $0.compactMap { $0["text"]?.string }.joined() }
        }
        guard let text else {
            if let error = ProviderError(document: json) {
                throw error.failureInsideStream(kind: kind == .openai ? .openai : .dashscope)
            }
            throw Failure(.upstreamProtocol, "the recognition upstream's response has no text")
        }
        return spoken(text)
    }

    /// The text without surrounding white space; empty when nothing was spoken. Recognizers report silence as an empty text, punctuation or
    /// a mark such as `[BLANK_AUDIO]`, `[no speech]` or `(silence)`.
    static func spoken(_ text: String) -> String {
        var depth = 0
        var hasWords = false
        for character in text {
            switch character {
            case "[", "(": depth += 1
            case "]", ")": depth = max(0, depth - 1)
            default: if depth == 0, character.isLetter || character.isNumber { hasWords = true }
            }
        }
        guard hasWords, let start = text.firstIndex(where: { !$0.isWhitespace }), let end = text.lastIndex(where: { !$0.isWhitespace })
        else {
            return ""
        }
        return String(text[start...end])
    }
}
