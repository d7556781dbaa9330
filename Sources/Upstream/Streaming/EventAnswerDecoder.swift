import Contract

/// Reads the events of one dialect's event stream.
protocol AnswerEventReader {
    init()

    /// Adds an event's content, finish reason or end mark to the answer. Only called with data, and not after the end mark.
    /// - Throws: the failure that the event reports, `upstream_protocol` for an invalid event. Neither changes an answer that is complete.
    mutating func read(_ event: ServerSentEvent, into answer: inout AnswerAssembler, _ batch: inout OutputBatch) throws(Failure)
}

/// Decoder for an answer that is sent as an event stream.
final class EventAnswerDecoder<Reader: AnswerEventReader>: StreamDecoder {
    private var parser = EventStreamParser()
    private var answer = AnswerAssembler()
    private var reader = Reader()
    /// Whether data after the complete answer was invalid. The rest of the stream is then ignored.
    private var ignoresRest = false

    var isComplete: Bool { answer.isComplete }
    var isOver: Bool { answer.isOver }

    func receive(_ bytes: Span<UInt8>, into batch: inout OutputBatch) throws(Failure) {
        guard !answer.sawEndMark, !ignoresRest else { return }
        do throws(Failure) {
            try parser.feed(bytes) { (event) throws(Failure) in try self.read(event, into: &batch) }
        } catch {
            // Data after a complete answer does not change it.
            if !isComplete { throw error }
            ignoresRest = true
        }
    }

    func finish(into batch: inout OutputBatch) throws(Failure) {
        if !answer.sawEndMark, !ignoresRest {
            do throws(Failure) {
                try parser.finish { (event) throws(Failure) in try self.read(event, into: &batch) }
            } catch {
                if !answer.isOver { throw error }
            }
        }
        if !answer.isOver { try parser.requireEvents() }
        try answer.deliver(into: &batch)
    }

    private func read(_ event: ServerSentEvent, into batch: inout OutputBatch) throws(Failure) {
        guard !answer.sawEndMark, !event.data.isEmpty else { return }
        try reader.read(event, into: &answer, &batch)
    }
}
