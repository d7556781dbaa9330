import Contract
import JSONCodec
import JobQueue
import NIOCore
import Support

/// What a client of `/v1/realtime` was admitted with.
struct RealtimeGrant: Sendable {
    /// Name of the tenant.
    var owner: String
    /// The configuration of the session at its beginning.
    var configuration: RealtimeConfiguration
}

/// The Realtime protocol on a client's WebSocket (platform.openai.com, "Realtime"): its items and audio buffer, and the responses that run as
/// requests of the socket's session. Confined to the event loop.
final class RealtimeConnection {
    /// A response that runs or is being submitted.
    final class Run {
        var response: RealtimeResponse
        let request: RunningRequest

        init(_ response: RealtimeResponse, _ request: RunningRequest) {
            self.response = response
            self.request = request
        }
    }

    /// A response that waits for the end of the one before it.
    struct Waiting {
        var plan: ResponsePlan
        var cancellation: RealtimeResponse.Cancellation?
    }

    /// Maximum responses that wait.
    static let waitingMaximum = 16

    let grant: RealtimeGrant
    let settings: GatewaySettings
    let registry: SessionRegistry
    private weak var socket: ClientSocket?
    var configuration: RealtimeConfiguration
    var items: RealtimeItems
    private(set) var input: RealtimeInput
    /// The id of the item that the current utterance will become.
    private var utterance: String?
    var runs: [Run] = []
    var waiting: [Waiting] = []
    /// Events that arrived before the session was open: at most what was read before reading stopped.
    private var early: [ByteBuffer] = []
    private var events = RealtimeEvents()
    private var nextItem = 0
    /// Bytes of audio that the session's account holds.
    private var held = 0
    private var expires = 0

    var session: Session? { socket?.session }

    init(_ grant: RealtimeGrant, socket: ClientSocket) {
        self.grant = grant
        self.socket = socket
        settings = socket.gateway.context.settings
        registry = socket.gateway.registry
        configuration = grant.configuration
        items = RealtimeItems(maximumSize: settings.historyMaximum)
        input = RealtimeInput(maximum: settings.audioMaximum)
        input.detect(configuration.turnDetection)
    }

    // MARK: sending

    func send(_ type: String, _ members: [JSONObject.Member]) { socket?.send(events.event(type, members)) }

    func send(_ type: String, _ members: KeyValuePairs<String, JSON> = [:]) {
        send(type, members.map { JSONObject.Member(name: $0.key, value: $0.value) })
    }

    func send(_ error: RealtimeError, eventID: String? = nil) {
        Refusals.count(.message, code: "realtime_error")
        send("error", ["error": error.json(eventID: eventID)])
    }

    // MARK: the session

    /// Sends `session.created` when the session is open.
    func opened(_ session: Session) {
        let timeout = settings.sessionTimeout.wholeMilliseconds
        expires = (session.createdMilliseconds + timeout) / 1_000
        send("session.created", ["session": configuration.json(id: identifier, expires: expires)])
        let early = early
        self.early = []
        for message in early { received(message) }
    }

    /// The session has reached its maximum duration, and is closed.
    func expired() {
        let seconds = settings.sessionTimeout.wholeSeconds
        send(RealtimeError("session_expired", "the session has reached its maximum duration of \(seconds) seconds"))
    }

    /// The connection closes: its audio is released.
    func closed() {
        early = []
        waiting = []
        runs = []
        session?.account.release(held)
        held = 0
    }

    private var identifier: String { "sess_" + (session?.id ?? "") }

    /// A new id of an item.
    func newItemID() -> String {
        nextItem += 1
        return "item_\(session?.id ?? "")_c\(nextItem)"
    }

    // MARK: client events

    /// Parses and handles one message; answers a faulty one with an `error` event.
    func received(_ message: ByteBuffer) {
        guard session != nil else { return early.append(message) }
        var values = 0
        let json: JSON
        do {
            json = try JSON(
                parsing: message.readableBytesView, maximumDepth: settings.jsonDepthMaximum, values: &values)
        } catch { return send(RealtimeError("invalid_json", "the event is not JSON: \(error)")) }
        socket?.account.charge(TrafficAccount.cost(ofValues: values))
        var eventID: String?
        do throws(RealtimeError) {
            guard json.object != nil else { throw RealtimeError("invalid_json", "the event is not a JSON object") }
            eventID = json["event_id"]?.string.map { $0.cut(toBytes: 512) }
            guard let type = json["type"]?.string else {
                throw RealtimeError("missing_required_parameter", "the event has no \"type\"", parameter: "type")
            }
            try handle(type, json, eventID)
        } catch { send(error, eventID: eventID) }
    }

    /// The members of each client event, beside `type` and `event_id`.
    private static let members: [String: [String]] = [
        "session.update": ["session"], "input_audio_buffer.append": ["audio"], "input_audio_buffer.commit": [],
        "input_audio_buffer.clear": [],
        "conversation.item.create": ["previous_item_id", "item"], "conversation.item.retrieve": ["item_id"],
        "conversation.item.delete": ["item_id"], "conversation.item.truncate": ["item_id", "content_index", "audio_end_ms"],
        "response.create": ["response"], "response.cancel": ["response_id"],
    ]

    private func handle(_ type: String, _ json: JSON, _ eventID: String?) throws(RealtimeError) {
        guard let members = Self.members[type] else {
            throw RealtimeError("unknown_event", "unknown event type \"\(type.cut(toBytes: 64))\"", parameter: "type")
        }
        var event = try reading { () throws(HTTPErrorResponse) in
            // An event with an unknown member has no effect at all.
            try FieldReader(json).requireOnly(members + ["type", "event_id"])
            return try FieldReader(json)
        }
        switch type {
        case "session.update":
            let session = event.value("session") ?? .null
            guard session.bytes.count <= settings.sessionMaximum else {
                throw RealtimeError("invalid_value", "the session is larger than \(settings.sessionMaximum) bytes", parameter: "session")
            }
            try reading { () throws(HTTPErrorResponse) in try configuration.apply(session) }
            input.detect(configuration.turnDetection)
            if configuration.turnDetection == nil { utterance = nil }
            send("session.updated", ["session": configuration.json(id: identifier, expires: expires)])
        case "input_audio_buffer.append": try append(&event)
        case "input_audio_buffer.commit": try commit()
        case "input_audio_buffer.clear":
            input.clear()
            utterance = nil
            account()
            send("input_audio_buffer.cleared")
        case "conversation.item.create": try createItem(&event)
        case "conversation.item.retrieve":
            let id = try reading { () throws(HTTPErrorResponse) in try event.requiredString("item_id") }
            guard let item = items.item(id) else { throw RealtimeItems.unknown(id) }
            send("conversation.item.retrieved", ["item": item.json])
        case "conversation.item.delete":
            let id = try reading { () throws(HTTPErrorResponse) in try event.requiredString("item_id") }
            guard items.delete(id) else { throw RealtimeItems.unknown(id) }
            account()
            send("conversation.item.deleted", ["item_id": .string(id)])
        case "conversation.item.truncate": try truncateItem(&event)
        case "response.create": try createResponse(&event)
        default: try cancel(try reading { () throws(HTTPErrorResponse) in try event.string("response_id") }, .client)
        }
    }

    /// Converts the error of reading a field.
    func reading<Value>(_ body: () throws(HTTPErrorResponse) -> Value) throws(RealtimeError) -> Value {
        do { return try body() } catch { throw RealtimeError(error) }
    }

    // MARK: audio

    private func append(_ event: inout FieldReader) throws(RealtimeError) {
        guard settings.recognizes else {
            throw RealtimeError("audio_not_supported", "speech is not recognized here; create items with text", parameter: "audio")
        }
        guard let text = try reading({ () throws(HTTPErrorResponse) in try event.string("audio") }) else {
            throw RealtimeError("missing_required_parameter", "\"audio\" is missing", parameter: "audio")
        }
        var bytes: [UInt8] = []
        guard Base64.decode(text, into: &bytes) else { throw RealtimeError("invalid_value", "\"audio\" is not base64", parameter: "audio") }
        guard let session, session.account.hasRoom(for: bytes.count) else {
            throw RealtimeError("rate_limit_exceeded", "too many bytes in memory for this tenant", type: "rate_limit_error")
        }
        // A second reference would copy the buffer.
        var buffer = input
        input = RealtimeInput(maximum: 0)
        let fits = buffer.append(bytes) { buffer, change in changed(change, &buffer) }
        input = buffer
        account()
        guard fits else {
            throw RealtimeError(
                "input_audio_buffer_full", "the audio buffer is full (\(settings.audioMaximum) bytes); commit or clear it",
                parameter: "audio")
        }
    }

    private func changed(_ change: RealtimeInput.Change, _ buffer: inout RealtimeInput) {
        switch change {
        case .speechStarted(let milliseconds):
            let id = utterance ?? newItemID()
            utterance = id
            send("input_audio_buffer.speech_started", ["audio_start_ms": .integer(milliseconds), "item_id": .string(id)])
            if configuration.turnDetection?.interruptsResponse == true { cancelAll(.turn) }
        case .speechStopped(let milliseconds):
            send(
                "input_audio_buffer.speech_stopped",
                ["audio_end_ms": .integer(milliseconds), "item_id": .string(utterance ?? "")])
            commit(buffer.take())
            guard configuration.turnDetection?.createsResponse == true else { return }
            do throws(RealtimeError) { try enqueue(ResponsePlan(configuration)) } catch { send(error) }
        }
    }

    private func commit() throws(RealtimeError) {
        guard input.milliseconds >= RealtimeInput.minimumMilliseconds else {
            throw RealtimeError(
                "input_audio_buffer_commit_empty",
                "the audio buffer holds \(input.milliseconds) ms; a commit needs at least \(RealtimeInput.minimumMilliseconds) ms")
        }
        commit(input.take())
    }

    /// Makes the buffer's audio an item.
    private func commit(_ audio: [UInt8]) {
        let id = utterance ?? newItemID()
        utterance = nil
        var item = RealtimeItem(id: id, kind: .message(.user, [.audio(transcript: nil)]))
        item.audio = audio
        let previous = items.items.last.map { JSON.string($0.id) } ?? .null
        send("input_audio_buffer.committed", ["previous_item_id": previous, "item_id": .string(id)])
        do throws(RealtimeError) { try add(item, after: nil) } catch { send(error) }
    }

    /// Updates the bytes of audio that the session's account holds.
    func account() {
        guard let session else { return }
        let bytes = input.audio.count + items.audioSize
        session.account.hold(bytes - held)
        held = bytes
    }
}
