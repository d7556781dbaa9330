import Contract
import CurlTransport
import JSONCodec

/// A request to synthesize one sentence.
package struct SpeechRequest: Sendable {
    package var jobID: JobID
    package var text: String
    package var model: String
    package var voice: String
    /// W3C Trace Context header of the job, unvalidated.
    package var traceparent: String?

    package init(jobID: JobID, text: String, model: String, voice: String) {
        self.jobID = jobID
        self.text = text
        self.model = model
        self.voice = voice
    }

    /// Builds the HTTP request. OpenAI: `POST /audio/speech`, which returns raw samples. DashScope: Qwen-TTS ("Speech synthesis - Qwen",
    /// Model Studio), which returns server-sent events.
    /// - Throws: `authentication` if the key is not a valid header value.
    func exchange(on speech: SpeechConfiguration) throws(Failure) -> HTTPRequest {
        var headers = RequestRules.headers(of: jobID, traceparent: traceparent)
        if let key = try RequestRules.key(of: speech.upstream) { headers.append("Authorization: Bearer \(key)") }
        switch speech.kind {
        case .openai:
            let body: JSON = ["model": .string(model), "voice": .string(voice), "input": .string(text), "response_format": "pcm"]
            return HTTPRequest(url: RequestRules.url(speech.upstream, "/audio/speech"), headers: headers, body: body.bytes)
        case .dashscope:
            let body: JSON = ["model": .string(model), "input": ["text": .string(text), "voice": .string(voice)]]
            headers.append("X-DashScope-SSE: enable")
            return HTTPRequest(
                url: RequestRules.url(speech.upstream, "/services/aigc/multimodal-generation/generation"), headers: headers,
                body: body.bytes)
        }
    }
}
