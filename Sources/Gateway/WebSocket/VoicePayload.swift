import Contract
import JSONCodec
import Support

/// The voice of a REQUEST with `data_type` VOICE: a whole utterance, a piece of one, or the start or end of binary frames.
struct VoicePayload: Sendable, Equatable {
    enum Mode: Sendable, Equatable {
        case base64
        case binary
    }

    var mode: Mode
    /// The `stream_seq` of a piece; −1 is the last one. Nil: the utterance is whole.
    var sequence: Int?
    /// `pcm` or `wav`.
    var format: String
    /// The decoded audio of this message.
    var audio: [UInt8]

    /// - Throws: MALFORMED_PAYLOAD, STREAM_SEQ_ERROR.
    init(_ payload: JSONObject, requestID: String) throws(ProtocolError) {
        func malformed(_ text: String) -> ProtocolError { .malformed(text, requestID: requestID) }
        guard let content = payload["content"]?.object ?? (payload.present("content") == nil ? JSONObject() : nil) else {
            throw malformed("\"content\" must be an object")
        }
        let isStream = try payload.flag("stream_flag", requestID: requestID)
        switch content.present("voice_mode") {
        case nil, .string("BASE64"): mode = .base64
        case .string("BINARY"): mode = .binary
        default: throw malformed("\"content.voice_mode\" must be BASE64 or BINARY")
        }
        switch content.present("audio_format") {
        case nil: format = "pcm"
        case .string(let text) where text == "pcm" || text == "wav": format = text
        default: throw malformed("\"content.audio_format\" must be pcm or wav")
        }
        let isWhole = isStream == false && mode == .base64
        if isWhole {
            sequence = nil
        } else {
            guard let number = payload.present("stream_seq")?.integer, number >= -1 else {
                throw ProtocolError(.streamSequence, "\"stream_seq\" must be 0, 1, 2… and -1 at the end", requestID: requestID)
            }
            sequence = number
        }
        audio = []
        switch content.present("voice") {
        case nil: if isWhole { throw malformed("\"content.voice\" is missing") }
        case .string(let text):
            guard mode == .base64 || text.isEmpty else {
                throw malformed("BINARY audio travels in binary frames, not in \"content.voice\"")
            }
            guard Base64.decode(text, into: &audio) else { throw malformed("\"content.voice\" is not base64") }
        default: throw malformed("\"content.voice\" must be a string")
        }
    }
}

/// The open VOICE request of a socket: collects the audio of one utterance. Does no I/O.
struct VoiceUpload {
    /// The first message of the request.
    let first: RequestPayload
    /// The job that will carry the utterance.
    let jobID: JobID
    private let mode: VoicePayload.Mode
    private var next = 1
    private(set) var audio: [UInt8]

    var id: String { first.id }
    var acceptsBinary: Bool { mode == .binary }

    /// - Parameter voice: of the first message, with the sequence number 0.
    init(_ first: RequestPayload, voice: VoicePayload, jobID: JobID) {
        self.first = first
        self.jobID = jobID
        mode = voice.mode
        audio = voice.audio
    }

    /// Adds the bytes of a binary frame.
    mutating func append(_ bytes: some Sequence<UInt8>) { audio.append(contentsOf: bytes) }

    /// Adds a piece.
    /// - Returns: whether the utterance is complete.
    /// - Throws: STREAM_SEQ_ERROR for a piece out of order.
    mutating func append(_ piece: VoicePayload) throws(ProtocolError) -> Bool {
        audio += piece.audio
        guard piece.sequence != -1 else { return true }
        guard mode == .base64, piece.sequence == next else {
            let expected = mode == .base64 ? "\(next) or -1" : "-1"
            throw ProtocolError(.streamSequence, "\"stream_seq\" must be \(expected)", requestID: id)
        }
        next += 1
        return false
    }
}
