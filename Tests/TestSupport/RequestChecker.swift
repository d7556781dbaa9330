import Contract
import JSONCodec

/// Checks the WebSocket frames of one request in order of arrival.
package struct RequestChecker: Sendable {
    package enum End: String, Sendable { case finished, interrupted, failed }

    package let id: String
    package private(set) var problems: [String] = []
    package private(set) var text = ""
    package private(set) var reasoning = ""
    package private(set) var calls: [JSON] = []
    package private(set) var end: End?
    /// The payload of the closing frame.
    package private(set) var last: JSON?
    package private(set) var job: String?
    package private(set) var lastEvent: EventID?
    package private(set) var frames = 0
    package private(set) var voiceFrames = 0
    /// Bytes of the voice, and the sample rates that its frames state.
    package private(set) var voiceBytes = 0
    package private(set) var voiceRates: [Int] = []
    package private(set) var transcript: String?
    package private(set) var restarts = 0
    /// CLOCK_MONOTONIC, ns.
    package internal(set) var sentAt = 0
    package private(set) var firstTextAt: Int?
    package private(set) var endedAt: Int?
    private var nextSequence = 0
    private var resumed = false
    private let whole: String?

    /// - Parameter model: the simulator's model; the text must always be a prefix of the model's text.
    package init(id: String, model: String?) {
        self.id = id
        whole = model.flatMap(SimulatorText.whole)
    }

    private mutating func addProblem(_ problem: String) {
        if problems.count < 20 { problems.append("request \(id): \(problem)") }
    }

    /// Notes that RESUME was sent, after which sequence numbers restart.
    package mutating func resume() {
        resumed = true
        nextSequence = 0
        voiceFrames = 0
    }

    package mutating func takeResponse(_ payload: JSON, at time: Int) {
        if let end { return addProblem("a RESPONSE after its end (\(end)): \(payload.text.prefix(200))") }
        frames += 1
        checkPlace(payload)
        if payload["restarted"]?.bool == true {
            restarts += 1
            nextSequence = 0
            voiceFrames = 0
            text = ""
            reasoning = ""
        }
        if let call = payload["function_call"] {
            if call["name"]?.string == nil || call["parameters"] == nil { addProblem("a function_call \(call.text)") }
            if payload["call_id"]?.string == nil { addProblem("a function_call without call_id") }
            var members = call.object ?? JSONObject()
            members["call_id"] = payload["call_id"]
            calls.append(.object(members))
        }
        if let transcript = payload["transcript"]?.string {
            if !text.isEmpty { addProblem("a transcript after the text") }
            self.transcript = transcript
        }
        reasoning += payload["reasoning"]?.string ?? ""
        if payload["text_stream_seq"]?.integer == -1 { return close(payload, at: time) }
        if payload["finish_reason"] != nil || payload["interrupted"] != nil {
            addProblem("a frame that says an end without the sequence -1")
        }
        if let content = payload["content"], content.object == nil { addProblem("content is \(content.text)") }
        if let voice = payload["content"]?["voice"]?.string {
            voiceBytes += voice.utf8.count / 4 * 3 - voice.utf8.suffix(2).count { $0 == 0x3D }
            if let rate = payload["voice_sample_rate"]?.integer { voiceRates.append(rate) }
            if voiceFrames == 0, payload["voice_sample_rate"]?.integer == nil { addProblem("the first voice frame states no sample rate") }
            if payload["voice_stream_seq"]?.integer != voiceFrames {
                addProblem("voice_stream_seq \(payload["voice_stream_seq"]?.text ?? "missing") where \(voiceFrames) was due")
            }
            voiceFrames += 1
        }
        let piece = payload["content"]?["text"]?.string
        if let sequence = payload["text_stream_seq"]?.integer {
            if sequence != nextSequence { addProblem("text_stream_seq \(sequence) where \(nextSequence) was due") }
            nextSequence = sequence + 1
        } else if piece != nil {
            addProblem("text without text_stream_seq")
        }
        guard let piece, !piece.isEmpty else { return }
        if firstTextAt == nil { firstTextAt = time }
        text += piece
        if let whole, !whole.hasPrefix(text) { addProblem("the text goes wrong at …\(text.suffix(40))") }
    }

    private mutating func checkPlace(_ payload: JSON) {
        guard let event = payload["event_id"]?.string.flatMap({ EventID($0) }) else {
            return addProblem("event_id is \(payload["event_id"]?.text ?? "missing")")
        }
        if let lastEvent, event < lastEvent { addProblem("event \(event) after \(lastEvent)") }
        lastEvent = max(event, lastEvent ?? event)
        let named = payload["job_id"]?.string
        if frames == 1, !resumed, named == nil { addProblem("the first frame has no job_id") }
        if let named {
            if let job, job != named { addProblem("job_id changed from \(job) to \(named)") }
            job = named
        }
    }

    private mutating func close(_ payload: JSON, at time: Int) {
        end = payload["interrupted"]?.bool == true ? .interrupted : .finished
        last = payload
        endedAt = time
        if payload["content"] != .object(JSONObject()) {
            addProblem("the closing frame's content is \(payload["content"]?.text ?? "missing")")
        }
        if payload["job_id"]?.string == nil { addProblem("the closing frame has no job_id") }
        if Usage(payload["usage"]) == nil || payload["usage"]?["estimated"]?.bool == nil {
            addProblem("the closing frame's usage is \(payload["usage"]?.text ?? "missing")")
        }
        let reason = payload["finish_reason"]?.string
        if end == .interrupted {
            if reason != "interrupted" { addProblem("an interrupted request's finish_reason is \(reason ?? "missing")") }
            if payload["interrupt_reason"]?.string == nil { addProblem("no interrupt_reason") }
            if payload["phase"]?.string.flatMap(Phase.init) == nil { addProblem("its phase is \(payload["phase"]?.text ?? "missing")") }
        } else {
            if reason.flatMap(FinishReason.init) == nil { addProblem("its finish_reason is \(reason ?? "missing")") }
            if let whole, text != whole { addProblem("finished with \(text.utf8.count) of \(whole.utf8.count) bytes") }
        }
    }

    package mutating func takeError(_ payload: JSON, at time: Int) {
        if let end { return addProblem("an ERROR after its end (\(end)): \(payload.text.prefix(200))") }
        end = .failed
        last = payload
        endedAt = time
        if payload["error_code"]?.string == nil || payload["error_msg"]?.string == nil {
            addProblem("an ERROR \(payload.text.prefix(200))")
        }
        if payload["retryable"]?.bool == nil { addProblem("an ERROR without retryable") }
    }
}
