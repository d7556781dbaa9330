import JSONCodec
import Support

/// The transcripts of the recognition endpoints: for audio that begins with `say:` the text after it, up to a zero byte or a line end; silence
/// as `[no speech]`; anything else as its length.
enum SimulatedHearing {
    private static let tag = Array("say:".utf8)
    /// Samples below this level are silence.
    private static let silence: Int16 = 200

    /// The transcript of PCM (16 kHz, 16 bits, mono, little-endian) or a WAV file with it.
    static func transcript(of audio: ArraySlice<UInt8>) -> String {
        let samples = payload(of: audio)
        if samples.starts(with: tag) {
            let text = samples.dropFirst(tag.count).prefix { $0 != 0 && $0 != 0x0A }
            return String(decoding: text, as: UTF8.self)
        }
        var isSilent = true
        for index in stride(from: samples.startIndex, to: samples.endIndex - 1, by: 2) {
            let sample = Int16(bitPattern: UInt16(samples[index]) | UInt16(samples[index + 1]) << 8)
            if sample > silence || sample < -silence {
                isSilent = false
                break
            }
        }
        return isSilent ? "[no speech]" : "speech of \(samples.count / 32) ms"
    }

    /// The samples of a WAV file; other audio unchanged.
    private static func payload(of audio: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        guard audio.starts(with: Array("RIFF".utf8)), let mark = audio.prefix(256).firstRange(of: Array("data".utf8)) else { return audio }
        return audio[min(mark.upperBound + 4, audio.endIndex)...]
    }

    /// Audio in a `data:` URL; nil when it is not base64.
    static func transcript(ofURL url: String) -> String? {
        guard let comma = url.firstIndex(of: ","), url.hasPrefix("data:") else { return nil }
        var audio: [UInt8] = []
        guard Base64.decode(String(url[url.index(after: comma)...]), into: &audio) else { return nil }
        return transcript(of: audio[...])
    }
}

/// A form with a file (RFC 7578), as much of it as the recognition endpoint reads.
enum MultipartForm {
    /// The fields as a JSON object, with the transcript of the file as the field `transcript`.
    /// - Parameter contentType: the value of `content-type`.
    /// - Throws: `Refusal` for a body that is no such form.
    static func json(_ body: [UInt8], contentType: String) throws(Refusal) -> JSON {
        guard let mark = contentType.firstRange(of: "boundary=") else { throw Refusal(400, "the form has no boundary") }
        let boundary = contentType[mark.upperBound...].prefix { $0 != ";" && $0 != " " }.filter { $0 != "\"" }
        let line = Array("--\(boundary)".utf8)
        var fields = JSONObject()
        var rest = body[...]
        guard !boundary.isEmpty, boundary.utf8.count <= 70, let first = rest.firstRange(of: line) else {
            throw Refusal(400, "the form's boundary is missing")
        }
        rest = rest[first.upperBound...]
        let end = Array("\r\n--\(boundary)".utf8)
        while let headEnd = rest.firstRange(of: Array("\r\n\r\n".utf8)), let partEnd = rest[headEnd.upperBound...].firstRange(of: end) {
            let head = String(decoding: rest[..<headEnd.lowerBound], as: UTF8.self)
            let content = rest[headEnd.upperBound..<partEnd.lowerBound]
            guard let quote = head.firstRange(of: " name=\"") else { throw Refusal(400, "a part of the form has no name") }
            let name = String(head[quote.upperBound...].prefix { $0 != "\"" })
            if name == "file" {
                fields["transcript"] = .string(SimulatedHearing.transcript(of: content))
            } else {
                fields[name] = .string(String(decoding: content.prefix(1_000), as: UTF8.self))
            }
            rest = rest[partEnd.upperBound...]
        }
        return .object(fields)
    }
}
