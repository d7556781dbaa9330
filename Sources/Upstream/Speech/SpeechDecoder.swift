import Contract
import JSONCodec
import Support

/// Reads the samples out of the body of a 2xx answer.
protocol SpeechDecoder: AnyObject {
    /// The answer is whole, whatever may follow.
    var isComplete: Bool { get }
    func receive(_ bytes: UnsafeRawBufferPointer, into samples: inout [UInt8]) throws(Failure)
    /// The body has ended as HTTP says.
    func finish(into samples: inout [UInt8]) throws(Failure)
}

/// Bare samples: whole when the body has ended as HTTP says.
final class SampleDecoder: SpeechDecoder {
    private var hasSamples = false
    private var hasEnded = false
    var isComplete: Bool { hasSamples && hasEnded }

    func receive(_ bytes: UnsafeRawBufferPointer, into samples: inout [UInt8]) throws(Failure) {
        hasSamples = hasSamples || !bytes.isEmpty
        samples.append(contentsOf: bytes)
    }

    func finish(into samples: inout [UInt8]) throws(Failure) { hasEnded = true }
}

/// DashScope's frames: base64 in `output.audio.data`, whole at the finish reason "stop".
final class DashScopeSpeechDecoder: SpeechDecoder {
    private var parser = EventStreamParser()
    private(set) var isComplete = false

    func receive(_ bytes: UnsafeRawBufferPointer, into samples: inout [UInt8]) throws(Failure) {
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
    }

    private func read(_ event: ServerSentEvent, into samples: inout [UInt8]) throws(Failure) {
        guard !event.data.isEmpty, !isComplete else { return }
        var frame = Frame()
        do throws(JSONError) { try frame.scan(event.data) } catch {
            throw Failure(.upstreamProtocol, "a frame of the speech stream cannot be read: \(error)")
        }
        if event.name.elementsEqual("error".utf8) || !frame.hasOutput && frame.code != nil {
            throw ProviderError(message: frame.message ?? "", code: frame.code).failureInsideStream(kind: .dashscope)
        }
        if let data = frame.audio, !data.isEmpty {
            guard Base64.decode(data, into: &samples) else {
                throw Failure(.upstreamProtocol, "a frame of the speech stream holds no base64")
            }
        }
        isComplete = frame.finishReason == "stop"
    }

    private struct Frame {
        var hasOutput = false
        var audio: String?
        var finishReason: String?
        var code: String?
        var message: String?

        mutating func scan(_ bytes: UnsafeRawBufferPointer) throws(JSONError) {
            var scanner = JSONScanner(bytes.assumingMemoryBound(to: UInt8.self))
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
    /// - Throws: `upstream_protocol` for an answer that can hold no samples.
    func decoder(for head: HTTPResponseHead) throws(Failure) -> any SpeechDecoder {
        let isStream = head.contentType == "text/event-stream"
        let isText = head.contentType.hasPrefix("text/") || head.contentType == "application/json"
        guard self == .dashscope ? isStream || head.contentType.isEmpty : !isText else {
            throw Failure(
                .upstreamProtocol, "the speech upstream's answer is \(head.contentType.cut(toBytes: 100)) and no audio",
                upstreamStatus: head.status)
        }
        return self == .openai ? SampleDecoder() : DashScopeSpeechDecoder()
    }
}
