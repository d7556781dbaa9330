import Contract
import JSONCodec
import JobQueue
import Support

/// What a response is made of: the session's configuration, and what `response.create` overrides.
struct ResponsePlan {
    var configuration: RealtimeConfiguration
    /// Items instead of the conversation's; nil: those.
    var input: [RealtimeItem]?
    /// Whether the response belongs to no conversation.
    var isOutOfBand = false
    var metadata: JSON = .null
    /// The id of the client's event.
    var eventID: String?

    init(_ configuration: RealtimeConfiguration) { self.configuration = configuration }
}

/// The responses of a Realtime connection. At most one response of the conversation runs at a time; one that was created while another is
/// being cancelled follows it.
extension RealtimeConnection: RequestListener {
    private static let noActiveResponse = RealtimeError("response_cancel_not_active", "there is no active response to cancel")

    /// The running response of the conversation.
    private var current: Run? { runs.first { !$0.response.isOutOfBand } }

    // MARK: response.create

    func createResponse(_ event: inout FieldReader) throws(RealtimeError) {
        var plan = ResponsePlan(configuration)
        if let json = event.value("response") {
            plan = try reading { () throws(HTTPErrorResponse) in try self.plan(json) }
        }
        // A response that is being cancelled does not count as active.
        if !plan.isOutOfBand, current.map({ $0.response.cancellation == nil }) ?? waiting.contains(where: { $0.cancellation == nil }) {
            throw RealtimeError(
                "conversation_already_has_active_response", "the conversation has an active response; wait for response.done or cancel it")
        }
        try enqueue(plan)
    }

    private func plan(_ json: JSON) throws(HTTPErrorResponse) -> ResponsePlan {
        var plan = ResponsePlan(configuration)
        var response = try FieldReader(json, at: "response")
        switch try response.string("conversation") {
        case nil, "auto": break
        case "none": plan.isOutOfBand = true
        default: throw response.invalid("conversation", "auto or none")
        }
        if let metadata = response.value("metadata") {
            guard let object = metadata.object, object.members.count <= 16, metadata.bytes.count <= 16 << 10 else {
                throw response.invalid("metadata", "an object of at most 16 strings")
            }
            plan.metadata = metadata
        }
        if let list = try response.array("input") {
            var input: [RealtimeItem] = []
            for (index, json) in list.enumerated() {
                if json["type"] == "item_reference", let id = json["id"]?.string {
                    guard let item = items.item(id) else { throw response.invalid("input[\(index)].id", "an item of the conversation") }
                    input.append(item)
                    continue
                }
                let item = try RealtimeItem(
                    json, at: response.name(of: "input[\(index)]"), id: newItemID(), recognizes: settings.recognizes)
                guard item.audio.isEmpty else { throw HTTPErrorResponse.notCarried(response.name(of: "input[\(index)].content")) }
                input.append(item)
            }
            plan.input = input
        }
        try plan.configuration.override(&response)
        try response.finish()
        return plan
    }

    /// Starts a response, or lets it wait for the one that is being cancelled.
    func enqueue(_ plan: ResponsePlan) throws(RealtimeError) {
        guard plan.isOutOfBand || current == nil else {
            guard waiting.count < Self.waitingMaximum else {
                throw RealtimeError("rate_limit_exceeded", "too many responses wait", type: "rate_limit_error")
            }
            return waiting.append(Waiting(plan: plan))
        }
        try start(plan)
    }

    /// Submits the job of a response and sends `response.created`.
    private func start(_ plan: ResponsePlan) throws(RealtimeError) {
        guard let session else { return }
        let configuration = plan.configuration
        var conversation = configuration.conversation
        let items = plan.input ?? self.items.items
        conversation.messages += RealtimeItems.messages(of: items)
        guard conversation.messages.contains(where: { if case .system = $0 { false } else { true } }) || !configuration.instructions.isEmpty
        else {
            throw RealtimeError("conversation_empty", "the conversation has no items and the session no instructions")
        }
        let spoken = items.filter { !$0.audio.isEmpty }
        let audio = spoken.isEmpty ? nil : spoken.flatMap(\.audio)
        let jobID = JobID(partition: session.partition, milliseconds: UInt64(clamping: WallClock.milliseconds))
        var job = Job(id: jobID, priority: .interactive, request: conversation.chatBody, session: session.id, owner: session.owner)
        let speaks = configuration.modality == .audio
        if speaks { job.speech = Job.Speech(voice: configuration.voice) }
        if audio != nil { job.recognition = Job.Recognition(language: configuration.language) }
        let response = RealtimeResponse(
            jobID: jobID, configuration: configuration, isOutOfBand: plan.isOutOfBand, metadata: plan.metadata,
            audioItems: plan.isOutOfBand ? [] : spoken.map(\.id))
        let request: RunningRequest
        do throws(ProtocolError) {
            request = try registry.request(response.id, job, audio: audio, speaks: speaks, for: self, in: session)
        } catch { throw RealtimeError(error) }
        runs.append(Run(response, request))
        send("response.created", ["response": response.json])
    }

    // MARK: response.cancel

    /// Cancels a response.
    /// - Parameter id: nil: the one of the conversation, or all that wait for it.
    func cancel(_ id: String?, _ cancellation: RealtimeResponse.Cancellation) throws(RealtimeError) {
        if let id {
            guard let run = runs.first(where: { $0.response.id == id }), run.response.cancellation == nil else {
                throw Self.noActiveResponse
            }
            return cancel(run, cancellation)
        }
        guard cancelAll(cancellation) else { throw Self.noActiveResponse }
    }

    /// Cancels the response of the conversation and those that wait for it.
    /// - Returns: whether there was one that was not being cancelled already.
    @discardableResult
    func cancelAll(_ cancellation: RealtimeResponse.Cancellation) -> Bool {
        var found = false
        for index in waiting.indices where waiting[index].cancellation == nil {
            waiting[index].cancellation = cancellation
            // The report of a cancelled response needs none of them.
            waiting[index].plan.input = nil
            waiting[index].plan.configuration.instructions = ""
            waiting[index].plan.configuration.tools = []
            found = true
        }
        if let current, current.response.cancellation == nil {
            cancel(current, cancellation)
            found = true
        }
        return found
    }

    private func cancel(_ run: Run, _ cancellation: RealtimeResponse.Cancellation) {
        run.response.cancel(cancellation)
        guard let session else { return }
        let reason = cancellation == .turn ? "USER_VOICE_INPUT" : InterruptReason.userStop
        registry.interrupt(run.request, in: session, reason: reason)
    }

    // MARK: events of jobs

    func received(_ events: [LoggedEvent], of request: RunningRequest) {
        guard let run = runs.first(where: { $0.request === request }) else { return }
        for event in events where run.response.ending == nil {
            var steps: [RealtimeResponse.Step] = []
            run.response.receive(event.event, spoken: request.machine.spoken, isCallTaken: items.hasCall) { steps.append($0) }
            for step in steps { perform(step, run.response) }
        }
        ended(run)
    }

    func refused(_ request: RunningRequest, _ error: ProtocolError) {
        guard let run = runs.first(where: { $0.request === request }) else { return }
        let code: FailureCode = error.code == .rateLimited ? .rateLimited : .overloaded
        var steps: [RealtimeResponse.Step] = []
        run.response.refuse(Failure(code, error.message)) { steps.append($0) }
        for step in steps { perform(step, run.response) }
        ended(run)
    }

    /// Starts the next waiting response when one of the conversation has ended.
    private func ended(_ run: Run) {
        guard run.response.ending != nil else { return }
        runs.removeAll { $0 === run }
        while current == nil, !waiting.isEmpty {
            let next = waiting.removeFirst()
            do throws(RealtimeError) {
                if let cancellation = next.cancellation { cancelled(next.plan, cancellation) } else { try start(next.plan) }
            } catch { send(error, eventID: next.plan.eventID) }
        }
    }

    /// Reports a response that was cancelled before it was started.
    private func cancelled(_ plan: ResponsePlan, _ cancellation: RealtimeResponse.Cancellation) {
        let id = JobID(partition: session?.partition ?? 0, milliseconds: UInt64(clamping: WallClock.milliseconds))
        var response = RealtimeResponse(
            jobID: id, configuration: plan.configuration, isOutOfBand: false, metadata: plan.metadata, audioItems: [])
        send("response.created", ["response": response.json])
        response.cancel(cancellation)
        var steps: [RealtimeResponse.Step] = []
        response.refuse(Failure(.internal, "")) { steps.append($0) }
        for step in steps { perform(step, response) }
    }

    private func perform(_ step: RealtimeResponse.Step, _ response: RealtimeResponse) {
        switch step {
        case .send("response.done", let members): send("response.done", members)
        case .send(let type, let members): send(type, [.init(name: "response_id", value: .string(response.id))] + members)
        case .add(let item):
            let previous = items.items.last.map { JSON.string($0.id) } ?? .null
            do throws(RealtimeError) { _ = try items.insert(item) } catch { return send(error) }
            send("conversation.item.added", ["previous_item_id": previous, "item": item.json])
        case .complete(let item):
            items.update(item.id) { $0 = item }
            let index = items.items.firstIndex { $0.id == item.id }
            let previous = index.flatMap { $0 > 0 ? JSON.string(items.items[$0 - 1].id) : nil } ?? .null
            send("conversation.item.done", ["previous_item_id": previous, "item": item.json])
        case .retract(let id):
            guard items.delete(id) else { return }
            send("conversation.item.deleted", ["item_id": .string(id)])
        case .transcribed(let text): transcribed(text, response)
        case .recognitionFailed(let failure): recognitionFailed(response.audioItems, failure)
        }
    }

    /// Records what the user said, in the last of the items that were recognized together.
    private func transcribed(_ text: String, _ response: RealtimeResponse) {
        for id in response.audioItems {
            guard let item = items.item(id), !item.audio.isEmpty else { continue }
            let transcript = id == response.audioItems.last ? text : ""
            let milliseconds = item.audio.count / (SpeechDetector.sampleRate / 1_000 * 2)
            items.update(id) {
                $0.audio = []
                $0.setTranscript(transcript)
            }
            guard configuration.transcription != nil else { continue }
            send(
                "conversation.item.input_audio_transcription.completed",
                [
                    "item_id": .string(id), "content_index": 0, "transcript": .string(transcript),
                    "usage": ["type": "duration", "seconds": .number("\(Double(milliseconds) / 1_000)")],
                ])
        }
        account()
    }
}
