import Contract
import CurlTransport
import JSONCodec
import Support

/// Extracts the samples from the body of a 2xx response.
protocol SpeechDecoder: AnyObject {
    /// Whether the audio is complete, regardless of further data.
    var isComplete: Bool { get }
    /// Decodes a part of the body and appends its samples.
    /// - Throws: `upstream_protocol` for invalid data, or the failure that the provider reported.
    func receive(_ bytes: Span<UInt8>, into samples: inout [UInt8]) throws(Failure)
    /// Decodes what is left after the body has ended properly.
    func finish(into samples: inout [UInt8]) throws(Failure)
}

/// Decoder for raw samples or a WAV file, which are complete when the body has ended properly.
final class SampleDecoder: SpeechDecoder {
    private var extractor = SampleExtractor()
    private var hasEnded = false
    var isComplete: Bool { extractor.hasSamples && hasEnded }

    func receive(_ bytes: Span<UInt8>, into samples: inout [UInt8]) throws(Failure) { try extractor.add(bytes, into: &samples) }

    func finish(into samples: inout [UInt8]) throws(Failure) {
        try extractor.finish(into: &samples)
        hasEnded = true
    }
}

/// Decoder for DashScope's frames: base64 in `output.audio.data`, complete at the finish reason "stop".
final class DashScopeSpeechDecoder: SpeechDecoder {
    private var parser = EventStreamParser()
    private var extractor = SampleExtractor()
    private(set) var isComplete = false

    func receive(_ bytes: Span<UInt8>, into samples: inout [UInt8]) throws(Failure) {
        guard !isComplete else { return }
        do throws(Failure) {
            try parser.feed(bytes) { (event) throws(Failure) in try self.read(event, into: &samples) }
        } catch {
            if !isComplete { throw error }
        }
    }

    func finish(into samples: inout [UInt8]) throws(Failure) {
        guard !isComplete else { return }
        try parser.finish { (event) throws(Failure) in try self.read(event, into: &samples) }
        if !isComplete { try extractor.finish(into: &samples) }
    }

    /// Decodes one frame. Frames after the finish reason are ignored.
    private func read(_ event: ServerSentEvent, into samples: inout [UInt8]) throws(Failure) {
        guard !event.data.isEmpty, !isComplete else { return }
        var frame = Frame()
        do throws(JSONError) { try frame.scan(event.data) } catch {
            throw Failure(.upstreamProtocol, "invalid frame in the speech stream: \(error)")
        }
        if event.name.equals("error") || !frame.hasOutput && frame.code != nil {
            throw ProviderError(message: frame.message ?? "", code: frame.code).failureInsideStream(kind: .dashscope)
        }
        if let data = frame.audio, !data.isEmpty {
            var audio: [UInt8] = []
            guard Base64.decode(data, into: &audio) else {
                throw Failure(.upstreamProtocol, "a frame of the speech stream contains invalid base64")
            }
            try extractor.add(audio.span, into: &samples)
        }
        guard frame.finishReason == "stop" else { return }
        try extractor.finish(into: &samples)
        isComplete = true
    }

    /// One frame of the stream.
    private struct Frame {
        var hasOutput = false
        var audio: String?
        var finishReason: String?
        var code: String?
        var message: String?

        /// - Throws: `JSONError` for invalid JSON and for a known member of the wrong type.
        mutating func scan(_ bytes: Span<UInt8>) throws(JSONError) {
            var scanner = JSONScanner(bytes)
            try scanner.object { (key, scanner) throws(JSONError) in
                switch key {
                case "output": if try !scanner.null() { try self.output(&scanner) }
                case "code": self.code = try scanner.optionalString()
                case "message": self.message = try scanner.optionalString()
                default: try scanner.skip()
                }
            }
            try scanner.finish()
        }

        private mutating func output(_ scanner: inout JSONScanner) throws(JSONError) {
            hasOutput = true
            try scanner.object { (key, scanner) throws(JSONError) in
                switch key {
                case "finish_reason": self.finishReason = try scanner.optionalString()
                case "audio":
                    guard try !scanner.null() else { return }
                    try scanner.object { (key, scanner) throws(JSONError) in
                        switch key {
                        case "data": self.audio = try scanner.optionalString()
                        default: try scanner.skip()
                        }
                    }
                default: try scanner.skip()
                }
            }
        }
    }
}

extension SpeechConfiguration.Kind {
    /// Returns the decoder for a 2xx response.
    /// - Throws: `upstream_protocol` if the content type is not audio, or compressed audio.
    func decoder(for head: HTTPResponseHead) throws(Failure) -> any SpeechDecoder {
        let isStream = head.contentType == "text/event-stream"
        let isText = head.contentType.hasPrefix("text/") || head.contentType == "application/json"
        guard self == .dashscope ? isStream || head.contentType.isEmpty : !isText else {
            throw Failure(
                .upstreamProtocol,
                "the speech upstream's response has content type \(head.contentType.cut(toBytes: 100)) instead of audio",
                upstreamStatus: head.status)
        }
        let compressed = [
            "mpeg", "mp3", "mpg", "mpeg3", "ogg", "opus", "aac", "aacp", "mp4", "m4a", "flac", "webm", "basic", "amr", "3gpp",
        ]
        let subtype = head.contentType.split(separator: "/").last.map { $0.hasPrefix("x-") ? $0.dropFirst(2) : $0 }
        if self == .openai, let subtype, compressed.contains(String(subtype)) {
            throw SampleExtractor.rejected(head.contentType.cut(toBytes: 100))
        }
        return self == .openai ? SampleDecoder() : DashScopeSpeechDecoder()
    }
}
