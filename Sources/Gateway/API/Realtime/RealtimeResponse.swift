import Contract
import JSONCodec
import JobQueue
import Support

/// A response of a Realtime session: converts the events of its job into server events. A state machine without I/O.
struct RealtimeResponse {
    /// What the caller does besides sending events.
    enum Step: Equatable {
        /// Sends an event with these members after `response_id`.
        case send(String, [JSONObject.Member])
        /// Adds an item to the conversation and sends `conversation.item.added`.
        case add(RealtimeItem)
        /// Updates the item in the conversation and sends `conversation.item.done`.
        case complete(RealtimeItem)
        /// Deletes the item from the conversation and sends `conversation.item.deleted`.
        case retract(String)
        /// The user's audio was recognized.
        case transcribed(String)
        /// The recognition failed.
        case recognitionFailed(Failure)
    }

    /// Why a running response was cancelled.
    enum Cancellation: String, Sendable {
        case client = "client_cancelled"
        case turn = "turn_detected"
    }

    private struct Output {
        var item: RealtimeItem
        /// Its index in the response; indexes of retracted items are not used again.
        let index: Int
    }

    let jobID: JobID
    let configuration: RealtimeConfiguration
    /// Whether the response belongs to no conversation.
    let isOutOfBand: Bool
    private let metadata: JSON
    /// The items whose audio is recognized by this response's job.
    let audioItems: [String]
    /// Set when the response is being cancelled: no further output is sent.
    private(set) var cancellation: Cancellation?
    private var outputs: [Output] = []
    private var nextIndex = 0
    /// The position in `outputs` of the message that grows.
    private var message: Int?
    private var text = ""
    /// The text of all messages.
    private var total = ""
    /// How much of an item was played, in milliseconds, by the item's id.
    private var played: [String: Int] = [:]
    /// The terminal event.
    private(set) var ending: Answer.Ending?
    private var usage: Usage?

    init(jobID: JobID, configuration: RealtimeConfiguration, isOutOfBand: Bool, metadata: JSON, audioItems: [String]) {
        self.jobID = jobID
        self.configuration = configuration
        self.isOutOfBand = isOutOfBand
        self.metadata = metadata
        self.audioItems = audioItems
    }

    var id: String { ResponseObject.identifier(of: jobID) }

    /// Stops the output. The terminal event follows.
    mutating func cancel(_ cancellation: Cancellation) { self.cancellation = self.cancellation ?? cancellation }

    /// Notes how much of an item of this response was played.
    /// - Returns: false when the item is not the growing message of this response.
    mutating func truncate(_ item: String, milliseconds: Int) -> Bool {
        guard ending == nil, outputs.contains(where: { $0.item.id == item && $0.item.spoken != nil }) else { return false }
        played[item] = milliseconds
        return true
    }

    // MARK: events

    /// Processes an event of the job. None may follow the terminal one.
    /// - Parameters:
    ///   - spoken: what the audio so far speaks.
    ///   - isCallTaken: whether a call id is in use in the conversation.
    mutating func receive(
        _ event: GenerationEvent, spoken: SpokenText, isCallTaken: (String) -> Bool = { _ in false }, _ report: (Step) -> Void
    ) {
        switch event {
        case .started, .upstream, .retrieved, .reasoning, .reasoningMark: break
        case .transcript(let text): report(.transcribed(text))
        case .text(let text): if cancellation == nil, !text.isEmpty { extend(text, report) }
        case .audio(let audio): if cancellation == nil, configuration.modality == .audio { play(audio, report) }
        case .toolCall(let call): if cancellation == nil { self.call(call, isCallTaken, report) }
        case .restarted: if cancellation == nil { restart(keeping: "", report) }
        case .resumed(let offset):
            // Live output can be ahead of the log: discard what the new worker will generate again.
            guard cancellation == nil, total.utf8.count > offset || hasCalls else { return }
            restart(keeping: String(decoding: total.utf8.prefix(offset), as: UTF8.self), report)
        case .finished(let reason, let usage, _):
            if reason == .noSpeech { report(.transcribed("")) }
            end(.finished(reason), usage, spoken, report)
        case .interrupted(let interruption): end(.interrupted(interruption), interruption.usage, spoken, report)
        case .failed(let failure, let usage):
            if failure.code == .recognitionFailed { report(.recognitionFailed(failure)) }
            end(.failed(failure), usage, spoken, report)
        }
    }

    /// Ends a response whose job does not run.
    mutating func refuse(_ failure: Failure, _ report: (Step) -> Void) {
        end(
            cancellation == nil ? .failed(failure) : .interrupted(Interruption(reason: "", phase: .queued, usage: .none)), .none, .init(),
            report)
    }

    private var hasCalls: Bool { outputs.contains { if case .call = $0.item.kind { true } else { false } } }

    private var speaks: Bool { configuration.modality == .audio }

    /// The members that identify a part of the response in an event.
    private func place(_ output: Output, hasContent: Bool = true) -> [JSONObject.Member] {
        var members: [JSONObject.Member] = [
            .init(name: "output_index", value: .integer(output.index)), .init(name: "item_id", value: .string(output.item.id)),
        ]
        if hasContent { members.append(.init(name: "content_index", value: 0)) }
        return members
    }

    private mutating func open(_ kind: RealtimeItem.Kind, prefix: String, _ report: (Step) -> Void) -> Int {
        let item = RealtimeItem(id: "\(prefix)_\(jobID.rawValue)_\(nextIndex)", kind: kind, status: .inProgress)
        outputs.append(Output(item: item, index: nextIndex))
        nextIndex += 1
        if !isOutOfBand { report(.add(item)) }
        report(
            .send(
                "response.output_item.added",
                [.init(name: "output_index", value: .integer(nextIndex - 1)), .init(name: "item", value: item.json)]))
        return outputs.count - 1
    }

    /// The position of the message that grows; opens one.
    private mutating func openMessage(_ report: (Step) -> Void) -> Int {
        if let message { return message }
        let position = open(.message(.assistant, []), prefix: "item", report)
        if speaks { outputs[position].item.spoken = SpokenText() }
        message = position
        text = ""
        report(.send("response.content_part.added", place(outputs[position]) + [.init(name: "part", value: part(""))]))
        return position
    }

    /// The content part of the message in events.
    private func part(_ text: String) -> JSON {
        speaks ? ["type": "audio", "transcript": .string(text)] : ["type": "text", "text": .string(text)]
    }

    private mutating func extend(_ more: String, _ report: (Step) -> Void) {
        let position = openMessage(report)
        text += more
        total += more
        report(
            .send(
                speaks ? "response.output_audio_transcript.delta" : "response.output_text.delta",
                place(outputs[position]) + [.init(name: "delta", value: .string(more))]))
    }

    private mutating func play(_ audio: Audio, _ report: (Step) -> Void) {
        guard audio.format == "pcm", !audio.data.isEmpty else { return }
        let position = openMessage(report)
        report(.send("response.output_audio.delta", place(outputs[position]) + [.init(name: "delta", value: .string(audio.data))]))
    }

    private mutating func call(_ call: ToolCall, _ isTaken: (String) -> Bool, _ report: (Step) -> Void) {
        // The audio of a spoken message may still follow.
        if !speaks { closeMessage(isWhole: true, SpokenText(), report) }
        var made = ChatHistory.Call(call)
        let isRepeated = outputs.contains { if case .call(let other) = $0.item.kind { other.id == made.id } else { false } }
        if call.callID.isEmpty || isRepeated || isTaken(made.id) { made.id = "call_\(jobID.rawValue)_\(nextIndex)" }
        let (id, arguments) = (made.id, made.arguments)
        let position = open(.call(.init(id: id, name: call.name, arguments: "")), prefix: "fc", report)
        let members = place(outputs[position], hasContent: false) + [.init(name: "call_id", value: .string(id))]
        report(.send("response.function_call_arguments.delta", members + [.init(name: "delta", value: .string(arguments))]))
        report(
            .send(
                "response.function_call_arguments.done",
                members + [.init(name: "name", value: .string(call.name)), .init(name: "arguments", value: .string(arguments))]))
        outputs[position].item.kind = .call(.init(id: id, name: call.name, arguments: arguments))
        complete(position, .completed, report)
    }

    private mutating func complete(_ position: Int, _ status: RealtimeItem.Status, _ report: (Step) -> Void) {
        outputs[position].item.status = status
        let output = outputs[position]
        if !isOutOfBand { report(.complete(output.item)) }
        report(
            .send(
                "response.output_item.done",
                [.init(name: "output_index", value: .integer(output.index)), .init(name: "item", value: output.item.json)]))
    }

    private mutating func closeMessage(isWhole: Bool, _ spoken: SpokenText, _ report: (Step) -> Void) {
        guard let position = message else { return }
        message = nil
        let output = outputs[position]
        if speaks {
            report(.send("response.output_audio.done", place(output)))
            report(
                .send("response.output_audio_transcript.done", place(output) + [.init(name: "transcript", value: .string(text))]))
        } else {
            report(.send("response.output_text.done", place(output) + [.init(name: "text", value: .string(text))]))
        }
        report(.send("response.content_part.done", place(output) + [.init(name: "part", value: part(text))]))
        outputs[position].item.kind = .message(.assistant, [speaks ? .speech(transcript: text) : .text(text)])
        if speaks { outputs[position].item.spoken = spoken }
        if let milliseconds = played[output.item.id] { outputs[position].item.truncate(milliseconds) }
        complete(position, isWhole ? .completed : .incomplete, report)
    }

    /// Generation began anew after output was sent. The items so far are retracted.
    private mutating func restart(keeping kept: String, _ report: (Step) -> Void) {
        closeMessage(isWhole: false, SpokenText(), report)
        for output in outputs where !isOutOfBand { report(.retract(output.item.id)) }
        outputs = []
        played = [:]
        text = ""
        total = ""
        if !kept.isEmpty { extend(kept, report) }
    }

    private mutating func end(_ ending: Answer.Ending, _ usage: Usage, _ spoken: SpokenText, _ report: (Step) -> Void) {
        let isWhole: Bool
        switch ending {
        case .finished(.length), .finished(.contentFilter), .interrupted, .failed: isWhole = false
        case .finished: isWhole = cancellation == nil
        }
        closeMessage(isWhole: isWhole, spoken, report)
        self.ending = ending
        self.usage = usage
        report(.send("response.done", [.init(name: "response", value: json)]))
    }

    // MARK: JSON

    /// The response object: complete after the terminal event, without output before.
    var json: JSON {
        var object = JSONObject([.init(name: "object", value: "realtime.response"), .init(name: "id", value: .string(id))])
        let (status, details) = status
        object["status"] = .string(status)
        object["status_details"] = details
        object["output"] = ending == nil ? [] : .array(outputs.map(\.item.json))
        object["conversation_id"] = isOutOfBand ? .null : "conv_1"
        object["output_modalities"] = [.string(configuration.modality.rawValue)]
        object["max_output_tokens"] = configuration.maximumTokens.map(JSON.integer) ?? "inf"
        object["audio"] = ["output": configuration.outputJSON]
        object["usage"] = ending == nil ? .null : usage.map(\.realtimeJSON) ?? .null
        object["metadata"] = metadata
        return .object(object)
    }

    private var status: (String, JSON) {
        switch ending {
        case nil: return ("in_progress", .null)
        case .finished(.length)?: return ("incomplete", ["type": "incomplete", "reason": "max_output_tokens"])
        case .finished(.contentFilter)?: return ("incomplete", ["type": "incomplete", "reason": "content_filter"])
        // The client no longer expects the rest of a cancelled response, also when its end crossed the cancellation.
        case .finished? where cancellation == nil: return ("completed", ["type": "completed"])
        case .finished?, .interrupted?:
            return ("cancelled", ["type": "cancelled", "reason": .string((cancellation ?? .client).rawValue)])
        case .failed(let failure)?:
            return (
                "failed",
                [
                    "type": "failed",
                    "error": [
                        "type": failure.retryable ? "server_error" : "invalid_request_error", "code": .string(failure.code.rawValue),
                        "message": .string(failure.message),
                    ],
                ]
            )
        }
    }
}

extension RealtimeItem {
    /// Cuts a spoken answer to what the user has heard of it.
    mutating func truncate(_ milliseconds: Int) {
        guard let spoken, case .message(.assistant, let parts) = kind, case .speech(let text)? = parts.first else { return }
        let bytes = spoken.heard(of: text, milliseconds: milliseconds)
        kind = .message(.assistant, [.speech(transcript: String(decoding: text.utf8.prefix(bytes), as: UTF8.self))])
    }
}

extension Usage {
    fileprivate var realtimeJSON: JSON {
        [
            "total_tokens": .integer(promptTokens.saturatingAdding(completionTokens)), "input_tokens": .integer(promptTokens),
            "output_tokens": .integer(completionTokens),
            "input_token_details": [
                "text_tokens": .integer(promptTokens), "audio_tokens": 0, "image_tokens": 0, "cached_tokens": .integer(cachedTokens ?? 0),
            ],
            "output_token_details": ["text_tokens": .integer(completionTokens), "audio_tokens": 0],
        ]
    }
}
