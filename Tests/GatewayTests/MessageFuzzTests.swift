import Contract
import JSONCodec
import JobQueue
import NIOCore
import NIOWebSocket
import RedisClient
import Support
import TestSupport
import Testing

@testable import Gateway

/// Fuzz tests with seeded messages for the gateway's decoders. `SLUICE_FUZZ_INPUTS` sets the number of inputs and `SLUICE_FUZZ_SEED` the
/// seed.
@Suite(.serialized, .cpuBound, .timeLimit(.minutes(600)))
struct MessageFuzzTests {
    private let inputs = Fuzz.inputs(1_500)
    private let seed = Fuzz.seed

    private static func frame(_ opcode: WebSocketOpcode, _ bytes: [UInt8], fin: Bool) -> WebSocketFrame {
        WebSocketFrame(fin: fin, opcode: opcode, maskKey: [0, 0, 0, 0], data: ByteBuffer(bytes: bytes))
    }

    @Test func `fragments are reassembled, and the buffer never exceeds its maximum`() {
        var fuzzer = MessageFuzzer(seed: seed)
        var machine = MessageMachine(maximum: 4_096, acceptsBinary: true)
        var (whole, binary) = (0, 0)
        for _ in 0..<inputs {
            let message = fuzzer.message()
            let pieces = fuzzer.pieces(message)
            var action = MessageMachine.Action.none
            // Audio between two messages; its fragments are passed on as they come.
            if fuzzer.chance(4) {
                for fin in [false, true] {
                    switch machine.receive(Self.frame(fin ? .continuation : .binary, [1, 2], fin: fin)) {
                    case .binary(let audio):
                        binary += 1
                        #expect(audio.readableBytes == 2 && machine.heldBytes == 0)
                    case .fail: machine = MessageMachine(maximum: 4_096, acceptsBinary: true)
                    case .none, .message, .pong, .closed, .failAtOnce: break
                    }
                }
            }
            for (index, piece) in pieces.enumerated() {
                var opcode: WebSocketOpcode = index == 0 ? .text : .continuation
                var fin = index == pieces.count - 1
                if fuzzer.chance(50) {
                    opcode = WebSocketOpcode(encodedWebSocketOpcode: UInt8.random(in: 0...15, using: &fuzzer.random)) ?? .text
                }
                if fuzzer.chance(50) { fin.toggle() }
                action = machine.receive(Self.frame(opcode, piece, fin: fin))
                #expect(machine.heldBytes <= 4_096)
                if case .fail = action { break }
                if case .failAtOnce = action { break }
                if case .closed = action { break }
            }
            switch action {
            case .message(let buffer):
                whole += 1
                #expect(buffer.readableBytes <= 4_096)
            case .fail, .failAtOnce, .closed: machine = MessageMachine(maximum: 4_096, acceptsBinary: true)
            case .none, .pong, .binary: break
            }
        }
        #expect(whole > inputs / 3, "most inputs are messages")
        #expect(binary > inputs / 10)
    }

    /// Checks that decoded messages obey every limit.
    private struct LimitChecker {
        var accepted: [String: Int] = [:]
        var settings = SessionSettings()
        /// The open VOICE request, as a socket keeps it, and how many became complete.
        var upload: VoiceUpload?
        var utterances = 0

        /// Handles the voice of a REQUEST like a socket.
        private mutating func take(_ voice: VoicePayload, of request: RequestPayload) throws(ProtocolError) {
            #expect(["pcm", "wav"].contains(voice.format) && voice.sequence ?? 0 >= -1)
            #expect(voice.mode == .base64 || voice.audio.isEmpty && voice.sequence != nil)
            if var open = upload, open.id == request.id {
                let before = open.audio.count
                upload = nil
                let isComplete = try open.append(voice)
                #expect(open.audio.count == before + voice.audio.count)
                if isComplete { utterances += 1 } else { upload = open }
            } else if voice.sequence == 0, let job = JobID("p0-J") {
                upload = VoiceUpload(request, voice: voice, jobID: job)
            } else if voice.sequence == nil {
                utterances += 1
            }
        }

        mutating func take(_ message: [UInt8]) throws(ProtocolError) {
            let envelope = try Envelope(parsing: ByteBuffer(bytes: message), maximumDepth: 32)
            #expect(envelope.sessionID.utf8.count <= 128)
            try take(envelope.kind, envelope.payload)
        }

        mutating func take(_ kind: Envelope.Kind, _ payload: JSONObject) throws(ProtocolError) {
            switch kind {
            case .register:
                let register = try RegisterPayload(payload)
                settings = register.settings
                #expect(register.resumedSession?.utf8.count ?? 0 <= 128)
            case .played:
                let played = try PlayedPayload(payload)
                #expect((1...128).contains(played.id.utf8.count) && (0...86_400_000).contains(played.milliseconds))
            case .request:
                let request = try RequestPayload(payload)
                if let voice = request.voice { try take(voice, of: request) }
                #expect(request.results.count <= FunctionResult.maximumCount)
                #expect((1...128).contains(request.id.utf8.count) && request.model?.utf8.count ?? 0 <= 256)
                settings = try request.update.applied(to: settings)
                let names = settings.functions.map(\.name)
                #expect(names.count <= 128 && names.allSatisfy { (1...64).contains($0.utf8.count) })
                let stored = settings.json
                #expect(stored.bytes.count <= SessionSettings.defaultMaximumSize)
                #expect(SessionSettings(stored: stored) == settings, "what is stored is what is read")
                let body = GenerationRequest.body(
                    settings: settings, history: ChatHistory(maximumTurns: 1, maximumSize: 1), text: request.text, model: request.model)
                #expect(body["messages"]?.array?.isEmpty == false)
            case .interrupt:
                let interrupt = try InterruptPayload(payload)
                #expect((1...64).contains(interrupt.reason.utf8.count))
                #expect(interrupt.ids?.allSatisfy { $0.utf8.count <= 128 } ?? true)
            case .resume:
                let resume = try ResumePayload(payload)
                #expect((1...128).contains(resume.id.utf8.count))
                if let after = resume.after { #expect(after.attempt >= 0 && after.sequence >= 0) }
            case .sessionQuery, .heartbeatReply, .healthCheck, .shutdown: break
            }
            accepted[kind.rawValue, default: 0] += 1
        }
    }

    @Test func `messages are decoded within all limits or rejected with a short error`() {
        var fuzzer = MessageFuzzer(seed: seed &+ 1)
        var checker = LimitChecker()
        for _ in 0..<inputs {
            let message = fuzzer.message()
            do { try checker.take(message) } catch {
                #expect(error.payload["error_msg"]?.string?.utf8.count ?? 0 < 400, "\(error.message.prefix(1_000))")
                #expect(error.requestID?.utf8.count ?? 0 <= 128)
            }
            // The same payload in a message of another type.
            let payload = fuzzer.payload()
            let kind = [Envelope.Kind.register, .request, .interrupt, .resume].randomElement(using: &fuzzer.random) ?? .request
            do { try checker.take(kind, payload) } catch { #expect(!error.message.isEmpty) }
        }
        #expect(checker.utterances > 0)
        for kind in ["REQUEST", "INTERRUPT", "RESUME", "SESSION_QUERY"] {
            #expect(checker.accepted[kind, default: 0] > 0, "some messages of each type are valid: \(checker.accepted)")
        }
    }

    @Test func `session records with arbitrary fields are read or rejected`() {
        var fuzzer = MessageFuzzer(seed: seed &+ 2)
        let names = [
            "owner", "epoch", "gateway", "created_ms", "last_request_ms", "settings", "history", "ended", "r:a", "r:", "quota", "x",
        ]
        var read = 0
        for _ in 0..<inputs {
            var values: [RESPValue] = [.bulk(ByteBuffer(string: "1"))]
            for name in names where !fuzzer.chance(6) {
                var text = fuzzer.payload().members.first?.value ?? .null
                if name == "epoch" || name == "owner" { text = fuzzer.chance(3) ? text : 1 }
                values.append(.bulk(ByteBuffer(string: name)))
                values.append(fuzzer.chance(20) ? .null : .bulk(ByteBuffer(bytes: (text.string.map { Array($0.utf8) }) ?? text.bytes)))
            }
            if fuzzer.chance(10) { values.removeLast() }
            guard let record = SessionRecord(.array(values)) else { continue }
            read += 1
            #expect((0...WallClock.milliseconds).contains(record.lastRequestMilliseconds))
            #expect(record.ended.count <= EndedRequest.maximumCount)
            _ = ChatHistory(stored: record.history, maximumTurns: 20, maximumSize: 1_000)
        }
        #expect(read > inputs / 10)
    }
}
