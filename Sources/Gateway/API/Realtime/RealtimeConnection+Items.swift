import Contract
import JSONCodec
import Support

/// The events that add, change and truncate items.
extension RealtimeConnection {
    /// Adds the item of a `conversation.item.create`.
    func createItem(_ event: inout FieldReader) throws(RealtimeError) {
        let (item, previous) = try reading { () throws(HTTPErrorResponse) in
            let previous = try event.string("previous_item_id")
            let item = try RealtimeItem(event.value("item") ?? .null, id: newItemID(), recognizes: settings.recognizes)
            return (item, previous)
        }
        try check(item)
        try add(item, after: previous)
    }

    /// Adds an item of the user, and reports it.
    func add(_ item: RealtimeItem, after previous: String?) throws(RealtimeError) {
        let before = try items.insert(item, after: previous).map(JSON.string) ?? .null
        // Utterances that no response has recognized yet are recognized together; the oldest give way.
        for old in items.unrecognized where items.audioSize > settings.audioMaximum && old.id != item.id {
            recognitionFailed([old.id], Failure(.recognitionFailed, "the audio was not recognized before more followed", retryable: false))
        }
        account()
        send("conversation.item.added", ["previous_item_id": before, "item": item.json])
        send("conversation.item.done", ["previous_item_id": before, "item": item.json])
    }

    /// Checks a client's item against the conversation.
    func check(_ item: RealtimeItem) throws(RealtimeError) {
        switch item.kind {
        case .output(let callID, _):
            guard items.hasCall(callID) else {
                throw RealtimeError(
                    "invalid_tool_call_id", "no function call of this conversation has the call_id \"\(callID.cut(toBytes: 64))\"",
                    parameter: "item.call_id")
            }
        case .call(let call):
            guard !items.hasCall(call.id) else {
                throw RealtimeError("item_already_exists", "the call_id is taken", parameter: "item.call_id")
            }
        case .message:
            guard item.audio.count <= settings.audioMaximum else {
                throw RealtimeError("item_too_large", "the audio is larger than \(settings.audioMaximum) bytes", parameter: "item")
            }
            guard session?.account.hasRoom(for: item.audio.count) ?? false else {
                throw RealtimeError("rate_limit_exceeded", "too many bytes in memory for this tenant", type: "rate_limit_error")
            }
        }
    }

    /// Handles a `conversation.item.truncate`: cuts an item off where the user stopped listening.
    func truncateItem(_ event: inout FieldReader) throws(RealtimeError) {
        let (id, index, end) = try reading { () throws(HTTPErrorResponse) in
            (try event.requiredString("item_id"), event.value("content_index")?.integer ?? 0, event.value("audio_end_ms")?.double)
        }
        guard let end, end >= 0, index == 0 else {
            let name = index == 0 ? "audio_end_ms" : "content_index"
            throw RealtimeError("invalid_value", "\"\(name)\" must be a number from 0", parameter: name)
        }
        let milliseconds = Int(min(end, 86_400_000))
        if let run = runs.first(where: { $0.response.truncate(id, milliseconds: milliseconds) }) {
            run.request.playedMilliseconds = milliseconds
        } else {
            guard let item = items.item(id) else { throw RealtimeItems.unknown(id) }
            guard item.spoken != nil else {
                throw RealtimeError("invalid_value", "only an assistant's message with audio can be truncated", parameter: "item_id")
            }
            items.update(id) { $0.truncate(milliseconds) }
        }
        send(
            "conversation.item.truncated",
            ["item_id": .string(id), "content_index": 0, "audio_end_ms": .integer(milliseconds)])
    }

    /// Records that the audio of items could not be recognized.
    func recognitionFailed(_ ids: [String], _ failure: Failure) {
        for id in ids {
            items.update(id) {
                $0.audio = []
                $0.setTranscript("")
            }
            send(
                "conversation.item.input_audio_transcription.failed",
                [
                    "item_id": .string(id), "content_index": 0,
                    "error": ["type": "transcription_error", "code": .string(failure.code.rawValue), "message": .string(failure.message)],
                ])
        }
        account()
    }
}
